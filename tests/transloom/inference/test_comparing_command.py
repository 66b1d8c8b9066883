"""`transloom compare RUN RUN… --test NAME` on real runs with untrained weights."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import sacrebleu
from sacrebleu.significance import PairedTest
from support.recipes import tiny_recipe, tiny_values
from typer.testing import CliRunner

from cluster.recipe import Recipe
from data_pipeline.dataset.manifest import open_dataset
from data_pipeline.preparation.prepare import prepare
from run_store.checkpoints.checkpoint import Checkpoint
from run_store.checkpoints.format import HEADER
from run_store.folder import RunFolder
from trainer.start.opening import open_folder
from transloom.cli.app import app

WIDTH = 250


@pytest.fixture(scope="module")
def runs(untrained_run, tmp_path_factory):
    """Return a folder of three runs: two seeds of one recipe, and one of another recipe."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("seed-2", "seed-4", "other"):
        shutil.copytree(untrained_run.path, folder / name)
    reseeded(folder / "seed-4", seed=4)
    reseeded(folder / "other", seed=2, **{"trainer.label_smoothing": 0.2})
    return folder


@pytest.fixture(autouse=True)
def _few_trials(monkeypatch):
    """Use few trials; another test compares all trials with sacreBLEU."""
    monkeypatch.setattr(PairedTest, "_DEFAULT_SAMPLES", {"bs": 20, "ar": 20})


def reseeded(run, **identity):
    """Change the settings of the newest checkpoint, and give it the weights of step 1."""
    checkpoints = RunFolder(run).checkpoints
    first, newest = (Checkpoint(checkpoints / f"step-0000000{step}") for step in (1, 2))
    header = newest.header.model_copy(
        update={
            "identity": newest.header.identity | identity,
            "recipe": newest.header.recipe | {"seed": identity["seed"]},
            "files": first.header.files,
        }
    )
    for file in newest.path.iterdir():
        file.unlink()
    for file in first.file_paths():
        shutil.copy(file, newest.path)
    (newest.path / HEADER).write_text(header.to_json())


def compare(folder, *arguments, code=0):
    result = CliRunner().invoke(app, ["compare", *arguments], env={"COLUMNS": str(WIDTH)})
    if result.exception and not isinstance(result.exception, SystemExit):
        assert code, repr(result.exception)
        return str(result.exception)
    assert result.exit_code == code, result.output
    return result


def sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@pytest.mark.long
def test_compare_reports_scores_significance_hashes_and_seeds(runs, phrasebook, monkeypatch):
    """All checks are in one test, because translating is slow."""
    monkeypatch.chdir(runs)
    names = ("seed-2", "seed-4", "other", "seed-2@1")
    found = json.loads(compare(runs, *names, "--test", "phrasebook", "--json").stdout)
    references = (phrasebook / "heldout" / "phrasebook.tgt.txt").read_text().split("\n")[:-1]
    assert found["test_set"] == {
        "name": "phrasebook",
        "sources_sha256": sha256(phrasebook / "heldout" / "phrasebook.src.txt"),
        "references_sha256": sha256(phrasebook / "heldout" / "phrasebook.tgt.txt"),
        "sentences": len(references),
    }
    assert found["baseline"] == "seed-2"
    for system in found["systems"]:
        hypotheses = Path(system["file"]).read_text().split("\n")[:-1]
        assert system["sha256"] == sha256(system["file"])
        assert not system["reused"]
        expected = sacrebleu.corpus_bleu(hypotheses, [references]).score
        assert system["scores"]["BLEU"]["score"] == pytest.approx(expected)
    assert [s["checkpoint"] for s in found["systems"]] == ["00000002"] * 3 + ["00000001"]
    assert [s["seed"] for s in found["systems"]][:3] == [2, 4, 2]
    first, same = found["systems"][1], found["systems"][3]
    assert first["sha256"] == same["sha256"], "the same weights translate alike"
    assert sum(row["sentences"] for row in found["by_length"]["rows"]) == len(references)
    assert "training pairs" in found["by_word_frequency"]["counted_in"]

    # A second comparison reuses the stored hypotheses and says that it does.
    monkeypatch.setattr("transloom.cli.compare_translations.load_translator", None)
    result = compare(runs, *names[:3], "--test", "phrasebook", "--json")
    again = json.loads(result.stdout)
    assert all(system["reused"] for system in again["systems"])
    assert result.stderr.count("using the hypotheses of this checkpoint") == 3
    (group,) = again["seeds"]
    assert (group["systems"], group["seeds"]) == (["seed-2", "seed-4"], [2, 4])
    scores = [system["scores"]["TER"]["score"] for system in again["systems"][:2]]
    assert group["mean"]["TER"] == pytest.approx(sum(scores) / 2)
    assert group["deviation"]["TER"] == pytest.approx(abs(scores[0] - scores[1]) / 2**0.5)

    text = compare(runs, *names[:2], "--test", "phrasebook").stdout
    markdown = compare(runs, *names[:2], "--test", "phrasebook", "--markdown").stdout
    for shown in (text, markdown):
        assert f"phrasebook: {len(references):,} sentences, the baseline is seed-2" in shown
        assert again["test_set"]["references_sha256"] in shown.replace("\n", "")
        assert "Seeds of one recipe" in shown
        assert "p, bootstrap" in shown
    assert again["metrics"]["BLEU"]["bootstrap"] in markdown.replace("\\", "")
    decoding = "beam 4, α 0.6"
    assert decoding in text
    table = [
        line for line in markdown.split("\n") if line.startswith(f"| seed-4 | {decoding} | BLEU |")
    ]
    score = again["systems"][1]["scores"]["BLEU"]["score"]
    assert f"| {score:.2f} |" in table[0]


@pytest.mark.long
def test_compare_reuses_hypotheses_of_evaluate(runs, monkeypatch):
    monkeypatch.chdir(runs)
    for name in ("seed-2", "other"):
        shutil.rmtree(Path(name) / "translations", ignore_errors=True)
        done = CliRunner().invoke(app, ["evaluate", name, "--processes", "1"])
        assert done.exit_code == 0, done.output
        assert "\tBLEU\t" in done.output
        assert "\tbeam 4, α 0.6\t" in done.output
    monkeypatch.setattr("transloom.cli.compare_translations.load_translator", None)
    found = compare(runs, "seed-2", "other", "--test", "phrasebook", "--json")
    assert [s["reused"] for s in json.loads(found.stdout)["systems"]] == [True, True]
    assert json.loads(found.stdout)["seeds"] == []


def test_compare_refuses_runs_whose_test_sets_differ(runs, tmp_path, phrasebook, monkeypatch):
    monkeypatch.chdir(runs)
    values = tiny_values(tmp_path / "dataset")
    corpora = values["data"]
    corpora["tests"] = {"phrasebook": corpora["validation"]}
    recipe = Recipe.of(values)
    prepare(recipe.data_settings, lambda progress: None)
    store, manifest = open_dataset(recipe.data)
    run = RunFolder(tmp_path / "elsewhere")
    open_folder(run, recipe, store, manifest)
    newest = RunFolder(runs / "seed-2").checkpoints / "step-00000002"
    shutil.copytree(newest, run.checkpoints / newest.name)
    header = Checkpoint(newest).header.model_copy(
        update={
            "dataset_identity": manifest.identity,
            "recipe": recipe.training().model_dump(mode="json"),
        }
    )
    (run.checkpoints / newest.name / HEADER).write_text(header.to_json())
    message = compare(runs, "seed-2", str(run.path), "--test", "phrasebook", code=1)
    ours = open_dataset(tiny_recipe(phrasebook).data)[1].heldout["phrasebook"].files["src"].sha256
    theirs = manifest.heldout["phrasebook"].files["src"].sha256
    assert "The sources of phrasebook differ" in message
    assert ours[:16] in message
    assert theirs[:16] in message


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["seed-2", "other", "--test", "nothing"], "has no held-out set 'nothing'"),
        (["seed-2", "nowhere", "--test", "phrasebook"], "nowhere is no run"),
        (["seed-2", "seed-4@9", "--test", "phrasebook"], "has no checkpoint of step 9"),
        (["seed-2", "seed-2", "--test", "phrasebook"], "seed-2 is named more than once"),
    ],
)
def test_compare_names_the_run_or_test_set_that_is_missing(runs, monkeypatch, arguments, complaint):
    monkeypatch.chdir(runs)
    assert complaint in compare(runs, *arguments, code=1)


@pytest.mark.parametrize(
    "arguments", [["a", "b", "c"], ["a", "b", "--markdown"], ["a", "b", "--processes", "2"]]
)
def test_compare_without_test_refuses_options_for_test_sets(arguments):
    result = CliRunner().invoke(app, ["compare", *arguments], env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert "without --test NAME, the command compares two runs step by step" in result.output
