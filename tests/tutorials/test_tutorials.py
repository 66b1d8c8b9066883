"""Run the commands of docs/tutorials in a shell with smaller models and fewer steps."""

import pytest
import yaml
from support.cluster.processes import wait_until
from support.pages import DOCS, steps
from support.recipes import SHORT_TRANSLATIONS
from support.tutorials.shell import tutorial_shell
from support.tutorials.stand_ins import install

from cluster.recipe import find_recipe

pytestmark = pytest.mark.long

SMALL = {
    "model": {"encoder_layers": 1, "decoder_layers": 1, "width": 32, "feed_forward_width": 32},
    "trainer": {"validate_every_steps": 1000},
}
PREPARED = "datasets/phrasebook is ready: 28,147 pairs, 7 shards, 3.1 MB, manifest 99e4d743a181810e"
DIGEST = "e9f293ba7f9b5a66d8e92d8d18d5f5f9f0ff6c0ac36871ed0ed2c74d43fb7451"
# For each page: changes of the recipe, and texts that each output must contain, on the page and in
# the test. The data are the same as on the page, so manifest and digests are equal, too.
PAGES = {
    "first-day": (
        SMALL,
        [
            ["Ray runtime started."],
            [PREPARED],
            ["submitting the job …", "transloom jobs logs -f phrasebook-"],
            ["starting 2 ranks", " of 2,000", "checkpoint of step 50 is complete"],
            ["ray::RankActor"],
            [" on node ", "starting 2 ranks from the checkpoint of step ", "restarted "],
            ["state                     training"],
            ["STOPPED", "exit code 75"],
            [" of 2,000"],
            ["starting 2 ranks from the checkpoint of step ", "Same data, and the same losses"],
            ["STOPPED", "RUNNING"],
            ["STOPPED"],
            ["Ray processes."],
        ],
    ),
    "same-curve": (
        SMALL | {"cluster": {"warm_spares": False}},
        [
            [PREPARED],
            ["1 CPU rank", "Finished at step 100. The run is in runs/one."],
            ["2 CPU ranks", "has died in phase", "and the same losses and weights to the last bit"],
            ["on 1 rank (before: 2)", "Finished at step 100. The run is in runs/two."],
            ["losses  the same bits in every step", "state   the same bits in all", "exit code 0"],
            ["step 100/100"],
            ["seed  1 and 2", "first   step 1: data, ffa122dbf81aa1f6… and 3efb", "exit code 1"],
            [DIGEST],
            [f'"data_digest": "{DIGEST}"\n"data_digest": "{DIGEST}"\n"data_digest": "4a87c815a78a'],
            ["losses  the same bits in every step", "state   the same bits in all"],
        ],
    ),
    "look-inside": (
        {
            "trainer": {"max_steps": 8, "validate_every_steps": 8},
            "cluster": {"ranks": 1, "warm_spares": False},
        },
        [
            [PREPARED, "The run is in runs/phrasebook."],
            ["2,000 probabilities per row", "918,528"],
            ["je suis étudiant → ", "runs/phrasebook/explain.html"],
            [" × √128 = "],
            [],
        ],
    ),
}
FILES = {"same-curve": "research"}


@pytest.fixture(params=PAGES)
def name(request):
    return request.param


def write_recipe(folder, replaced):
    """Write a recipe that overrides the built-in one for commands in this folder."""
    values = yaml.safe_load(find_recipe("phrasebook").read_text(encoding="utf-8"))
    for section, fields in replaced.items():
        values[section] |= fields
    values["decoding"] |= SHORT_TRANSLATIONS
    values["tracking"] = {"wandb": "disabled"}
    folder.mkdir(parents=True)
    (folder / "phrasebook").write_text(yaml.safe_dump(values), encoding="utf-8")


def test_the_commands_of_a_tutorial_print_what_the_page_shows(name, tmp_path):
    replaced, contained = PAGES[name]
    page = steps(f"tutorials/{FILES.get(name, name)}.md")
    of_shown = iter(contained)
    texts = [next(of_shown) if step.shown else [] for step in page]
    assert list(of_shown) == []
    home = tmp_path / "home"
    write_recipe(home / name, replaced)
    with tutorial_shell(home, install(tmp_path / "bin")) as shell:
        ran = shell.run(page, texts)
        for step, code, output, seconds in ran:
            print(f"{seconds:6.1f} s: {step.command}")  # pytest shows it if the test fails
            assert code == 0, (step.command, output)
        assert len(ran) == len(page)
        for (step, _, output, _), of_step in zip(ran, texts, strict=True):
            for text in of_step:
                assert text in step.shown, step
                assert text in output, (step.command, output)
        wait_until(lambda: not shell.processes())


@pytest.mark.parametrize("page", sorted((DOCS / "tutorials").glob("*.md")), ids=lambda p: p.stem)
def test_every_tutorial_page_is_tested(page):
    assert page.stem in {FILES.get(name, name) for name in PAGES}
