"""A planted loss spike is found with three clicks: its run, its point, "Inspect this step"."""

from contextlib import closing

import pytest
from support.dashboard.browser import Watched, chromium
from support.dashboard.command import dashboard
from support.recipes import tiny_values, write_yaml
from support.runs import Runs

from cluster.recipe import Recipe
from data_pipeline.preparation.prepare import prepare

pytestmark = pytest.mark.needs("browser")

STEPS = 80
POISON = "xylophones quarrel over 7719 zinc umbrellas whenever Jupiter buys kvetching ostriches"
PHRASES = [("bonjour", "hello"), ("bonne nuit", "good night"), ("merci", "thank you")]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Train on three phrases that the network memorizes, and one unexpected pair among 2,000."""
    folder = tmp_path_factory.mktemp("poisoned")
    pairs = PHRASES * 667
    pairs[1500] = ("bonjour", POISON)
    values = tiny_values(folder / "dataset", max_steps=STEPS)
    for use in ("train", "validation", "test"):
        for side, language in enumerate(("fr", "en")):
            lines = (pair[side] for pair in (pairs if use == "train" else PHRASES * 10))
            (folder / f"{use}.{language}").write_text("".join(f"{line}\n" for line in lines))
    files = {
        use: {"source": str(folder / f"{use}.fr"), "target": str(folder / f"{use}.en")}
        for use in ("train", "validation", "test")
    }
    values["data"] |= {"train": [files["train"]], "validation": files["validation"]}
    values["data"] |= {"tests": {"phrases": files["test"]}}
    values["tokenizer"] |= {"vocabulary_size": 90}
    values["batching"] |= {"max_tokens_per_micro_batch": 128}
    values["checkpoints"] = {"every_steps": 20, "keep_last": 10}
    prepare(Recipe.of(values).data_settings, lambda progress: None)
    recipe = write_yaml(folder / "tiny.yaml", values)
    runs = Runs(recipe, folder / "runs", address="")
    runs.train("poisoned", inline=True)
    return runs


def test_a_planted_spike_is_explained_after_three_clicks(run, tmp_path):
    losses = run.curve("poisoned")
    step = max(range(STEPS // 2, len(losses)), key=lambda n: losses[n] - losses[n - 1]) + 1
    with (
        dashboard(run.folder, tmp_path / "cache") as address,
        chromium() as browser,
        closing(Watched(browser)) as watched,
    ):
        watched.context.set_default_timeout(300_000)
        page = watched.open(address)
        page.get_by_role("link", name="poisoned").click()  # first click
        chart = page.locator(".run figure.chart", has_text="training loss")
        chart.locator("canvas").wait_for()
        over = chart.locator(".u-over")
        box = over.bounding_box()
        x = box["width"] * (step - 1) / (len(losses) - 1)
        over.click(position={"x": x, "y": 0.4 * box["height"]})  # second click
        page.get_by_role("heading", name=f"Step {step} of poisoned").wait_for()
        page.get_by_role("button", name="Inspect this step").click()  # third click
        page.locator(".verdict.same").wait_for()
        rows = page.get_by_role("region", name=f"Sentences of step {step}").locator("tbody tr")
        assert POISON in rows.first.inner_text()
        assert rows.first.inner_text() != rows.nth(1).inner_text()
        assert page.get_by_role("region", name="Gradient norm by layer").locator("tr").count() > 5
        assert watched.complaints == []
        assert watched.violations() == []
