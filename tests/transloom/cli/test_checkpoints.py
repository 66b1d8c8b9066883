"""`transloom checkpoints`, and translating with a chosen checkpoint."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from support.recipes import tiny_values, write_yaml
from support.records.checkpoints import rewrite_header
from support.runs import Runs

from run_store import lease as lease_module
from run_store.checkpoints.checkpoint import sha256_of
from run_store.checkpoints.folder_names import list_checkpoints, step_of
from run_store.checkpoints.format import read_header
from run_store.errors import CheckpointError, RunInUseError, RunMismatchError
from run_store.lease import Lease
from trainer.tasks.translation import translation_scores
from transloom.cli.checkpoints import average_run
from transloom.inference.trained_network import load_network

STEPS = [2, 4, 6]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, phrasebook):
    """Return a run with three checkpoints; the first has no validation scores."""
    folder = tmp_path_factory.mktemp("trained")
    values = tiny_values(phrasebook, max_steps=6) | {
        "checkpoints": {"every_steps": 2, "keep_last": 3}
    }
    values["trainer"]["validate_every_steps"] = 4
    values["decoding"] |= {"max_extra_length": 1, "beam_size": 1}
    recipe = write_yaml(folder / "recipe.yaml", values)
    result = Runs(recipe, folder, address="").train("run", inline=True)
    assert [int(path.name[-1]) for path in list_checkpoints(result.run / "checkpoints")] == STEPS
    return result.run


@pytest.fixture
def run(trained, tmp_path):
    """Return a copy of the run whose recipe keeps only the last two checkpoints."""
    copy = Path(shutil.copytree(trained, tmp_path / "run"))
    recipe = yaml.safe_load((copy / "recipe.yaml").read_text())
    recipe["checkpoints"] |= {"keep_last": 2, "keep_best": 0}
    (copy / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return copy


def steps(run):
    return [int(path.name[-8:]) for path in list_checkpoints(run / "checkpoints")]


def damage(run, step):
    (state,) = (run / "checkpoints" / f"step-{step:08d}").glob("*.safetensors")
    state.write_bytes(state.read_bytes()[:-1])


def test_verify_inspects_tensors_and_headers_even_if_all_hashes_match(transloom, run):
    """An attacker who changes a tensor can also update its recorded hash."""
    folders = list_checkpoints(run / "checkpoints")
    (state,) = folders[0].glob("*.safetensors")
    state.write_bytes(state.read_bytes()[:-4] + b"\0\0\xc0\x7f")  # the last number is NaN
    hashed = {"sha256": sha256_of(state)}
    files = [record.model_copy(update=hashed) for record in read_header(folders[0]).files]
    rewrite_header(folders[0], files=files)
    parameters = dict(read_header(folders[1]).parameters)
    name = next(name for name, shape in parameters.items() if len(set(shape)) == 2)
    rewrite_header(folders[1], parameters=parameters | {name: parameters[name][::-1]})
    recipe = read_header(folders[2]).recipe
    wide = recipe | {"model": recipe["model"] | {"width": 2 * 10**9}}
    rewrite_header(folders[2], recipe=wide)
    result = transloom("checkpoints", "verify", run, "--json")
    assert result.exit_code == 1
    nan, transposed, too_wide = (row["problem"] for row in json.loads(result.stdout))
    assert f"{state} has nan as element" in nan
    assert f"parameter {name} of shape {parameters[name][::-1]}" in transposed
    assert f"the recipe's model has {parameters[name]}" in transposed
    assert "The checkpoint's recipe has model.width = 2000000000" in too_wide
    with pytest.raises(CheckpointError, match="a checkpoint of the recipe's model"):
        load_network(run, STEPS[1], "cpu", "fp32")


def test_list_shows_scores_and_averages(transloom, run, monkeypatch):
    assert transloom("checkpoints", "average", run, "--steps", "2,6").exit_code == 0
    rows = json.loads(transloom("checkpoints", "list", run, "--json").stdout)
    assert [row["step"] for row in rows] == [2, 4, 6, 6]
    assert [row["averaged_steps"] for row in rows] == [[], [], [], [2, 6]]
    measures = ["loss", "perplexity", "bleu"]
    assert [list(row["scores"]) for row in rows] == [[], measures, measures, []]
    assert rows[3]["bytes"] * 2.5 < rows[0]["bytes"]  # averages have no optimizer moments
    monkeypatch.setenv("COLUMNS", "120")
    text = transloom("checkpoints", "list", run).stdout
    assert "average-of-2-6" in text
    assert "1 rank, ZeRO 1" in text
    (run / "checkpoints" / "step-00000002" / "checkpoint.json").write_text("{")
    assert "step-00000002" in transloom("checkpoints", "list", run).stdout


def test_verify_reports_which_checkpoint_is_damaged(transloom, run):
    transloom("checkpoints", "average", run)
    result = transloom("checkpoints", "verify", run, "--json")
    assert result.exit_code == 0
    assert [row["intact"] for row in json.loads(result.stdout)] == [True] * 4
    damage(run, 4)
    result = transloom("checkpoints", "verify", run, "--json")
    assert result.exit_code == 1
    rows = json.loads(result.stdout)
    assert [row["intact"] for row in rows] == [True, False, True, True]
    assert "checkpoint.json says" in rows[1]["problem"]
    assert "verifying" in result.stderr


def test_prune_keeps_as_many_checkpoints_as_the_recipe_says(transloom, run):
    told = transloom("checkpoints", "prune", run, "--dry-run").stdout
    assert told.startswith("These checkpoints would be removed:")
    assert "step-00000002" in told.replace("\n", "")
    assert steps(run) == STEPS
    removed = json.loads(transloom("checkpoints", "prune", run, "--json").stdout)["removed"]
    assert [Path(path).name for path in removed] == ["step-00000002"]
    assert steps(run) == [4, 6]
    assert transloom("checkpoints", "prune", run).stdout == "No checkpoint is removed.\n"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--keep-last", 1], [6]),
        (["--keep-last", 1, "--keep-every", 2], STEPS),
        (["--keep-last", 1, "--keep-every", 4], [4, 6]),
        (["--keep-last", 1, "--keep-best", 3], [4, 6]),
    ],
    ids=str,
)
def test_prune_options_override_the_recipe(transloom, run, options, expected):
    assert transloom("checkpoints", "prune", run, *options).exit_code == 0
    assert steps(run) == expected
    assert {path.name for path in (run / "checkpoints").iterdir()} == {
        f"step-{step:08d}" for step in expected
    }


def test_prune_is_refused_while_the_run_trains(transloom, run, monkeypatch):
    monkeypatch.setattr(lease_module, "RENEW_SECONDS", 0.05)
    with Lease(run), pytest.raises(RunInUseError):
        transloom("checkpoints", "prune", run)
    assert steps(run) == STEPS


@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)])
def test_prune_removes_and_lists_nothing_while_the_newest_is_damaged(transloom, run, dry_run):
    damage(run, 6)
    with pytest.raises(CheckpointError, match=r"step-00000006.* bytes.*Nothing is removed"):
        transloom("checkpoints", "prune", run, "--keep-last", 1, *dry_run)
    assert steps(run) == STEPS


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], STEPS),
        (["--last", 2], [4, 6]),
        (["--steps", "6, 2"], [2, 6]),
        (["--best", 2], [4, 6]),
    ],
    ids=str,
)
def test_average_uses_the_checkpoints_that_its_options_select(transloom, run, options, expected):
    answer = json.loads(transloom("checkpoints", "average", run, *options, "--json").stdout)
    assert answer["averaged_steps"] == expected
    assert Path(answer["path"]).name == "average-of-" + "-".join(map(str, expected))


def test_average_sorts_checkpoints_by_the_metric_of_the_recipe(run):
    losses = {2: 3.0, 4: 1.0, 6: 2.0}
    for path in list_checkpoints(run / "checkpoints"):
        rewrite_header(path, scores=translation_scores(losses[step_of(path)], 0.0))
    assert average_run(run, None, 2, None).header.averaged_steps == [4, 6]


def test_the_translate_command_that_average_prints_can_be_run(transloom, run, tmp_path):
    told = transloom("checkpoints", "average", run, "--last", 2).stdout.strip().split("\n")[-1]
    sentences = tmp_path / "sentences"
    sentences.write_text("je suis étudiant\nnon\n")
    program, *arguments = told.split()
    assert program == "transloom"
    run_argument = arguments.index(str(run))
    arguments.insert(run_argument + 1, str(sentences))
    averaged = transloom(*arguments)
    assert averaged.exit_code == 0
    assert len(averaged.stdout.splitlines()) == 2


@pytest.mark.parametrize("numerics", [{}, {"ranks": [1], "zero_stage": "x"}])
def test_list_shows_checkpoints_without_a_number_of_ranks(transloom, run, numerics, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    rewrite_header(list_checkpoints(run / "checkpoints")[0], numerics=numerics)
    text = transloom("checkpoints", "list", run).stdout
    assert text.count("1 rank, ZeRO") == len(STEPS) - 1


def test_list_says_how_scores_were_decoded(transloom, run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "240")
    text = transloom("checkpoints", "list", run).stdout
    assert "validation loss " in text
    assert "validation BLEU (greedy)" in text


def test_evaluate_names_the_tokenization_of_its_bleu_scores(transloom, run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    told = transloom("evaluate", run, "--beam-size", 1).stdout
    assert "BLEU of lower-cased Moses tokens" in told
    assert "Multi30k" not in told  # the test set is not Multi30k


@pytest.mark.long
def test_evaluate_writes_separate_files_for_an_average_and_its_last_step(transloom, run):
    transloom("checkpoints", "average", run, "--last", 2)
    for checkpoint, name in (("6", "step-00000006"), ("average-of-4-6", "average-of-4-6")):
        options = ["--checkpoint", checkpoint, "--beam-size", 1, "--json"]
        (scores,) = json.loads(transloom("evaluate", run, *options).stdout)
        assert scores["checkpoint"] == name
        assert Path(scores["hypotheses"]).exists()
    assert {path.name.split("-beam")[0] for path in (run / "translations").glob("phrase*")} == {
        "phrasebook-00000006",
        "phrasebook-average-of-4-6",
    }


@pytest.mark.parametrize(
    ("last", "best", "chosen", "message"),
    [
        (5, None, None, r"has only 3 of the 5 checkpoints.*steps 2, 4, 6"),
        (None, 3, None, r"has only 2 of the 3 checkpoints"),
        (None, None, [2, 3], r"has only 1 of the 2 checkpoints"),
    ],
)
def test_average_reports_that_there_are_too_few_checkpoints(run, last, best, chosen, message):
    with pytest.raises(CheckpointError, match=message):
        average_run(run, last, best, chosen)


@pytest.mark.parametrize(
    "options", [["--last", 2, "--best", 2], ["--steps", "2-6"], ["--last", 0]], ids=str
)
def test_average_refuses_conflicting_and_invalid_options(transloom, run, options):
    assert transloom("checkpoints", "average", run, *options).exit_code == 2


def test_every_checkpoints_command_refuses_a_folder_without_a_run(transloom, tmp_path):
    for command in ("list", "verify", "prune", "average"):
        with pytest.raises(RunMismatchError):
            transloom("checkpoints", command, tmp_path)
