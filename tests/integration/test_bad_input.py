"""Messages and exit codes for mistakes of users, which damage neither runs nor datasets."""

import hashlib
import json
import shutil
import sys
from pathlib import Path

import pytest
from support.recipes import SHORT_TRANSLATIONS, tiny_values, write_yaml
from support.records.checkpoints import header_of, rewrite_header
from support.runs import Runs

from data_pipeline.arrays import FieldArrays
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.dataset.shards import pack_shard, unpack_shard
from data_pipeline.storage.store import open_store
from transloom.cli import app


class Failure:
    """Exit code and message of a command."""

    def __init__(self, code: int, message: str) -> None:
        self.code = code
        self.message = " ".join(message.split())


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Return a function that runs `transloom …` in this process and returns its failure."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Failure:
        monkeypatch.setattr(sys, "argv", ["transloom", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            app.main()
        output = capsys.readouterr()
        assert "Traceback" not in output.err
        return Failure(exit_.value.code, output.err)

    return run


@pytest.fixture
def recipe(tmp_path, phrasebook):
    """Return the file of the tiny recipe, on the prepared phrase book."""
    values = tiny_values(phrasebook, max_steps=4) | {"decoding": SHORT_TRANSLATIONS}
    return write_yaml(tmp_path / "tiny.yaml", values)


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory, phrasebook):
    """Return a run of four steps of the tiny recipe."""
    folder = tmp_path_factory.mktemp("trained")
    values = tiny_values(phrasebook, max_steps=4) | {"decoding": SHORT_TRANSLATIONS}
    recipe = write_yaml(folder / "tiny.yaml", values)
    Runs(recipe, folder, address="").train("run", inline=True)
    return folder / "run"


@pytest.fixture
def run(trained_once, tmp_path):
    """Return a copy of the run, which a test may damage."""
    return Path(shutil.copytree(trained_once, tmp_path / "run"))


@pytest.fixture
def corpus_recipe(tmp_path):
    """Return a recipe on small text files, which a test may damage."""
    for side in ("fr", "en"):
        lines = [f"{side} phrase {n} mot {n % 7}" for n in range(200)]
        (tmp_path / f"text.{side}").write_text("".join(f"{line}\n" for line in lines))
    values = tiny_values(tmp_path / "dataset")
    corpus = {"source": str(tmp_path / "text.fr"), "target": str(tmp_path / "text.en")}
    values["data"] |= {"train": [corpus], "validation": corpus, "tests": {}}
    values["tokenizer"]["vocabulary_size"] = 60
    return write_yaml(tmp_path / "corpus.yaml", values)


def test_a_missing_corpus_is_reported(command, corpus_recipe, tmp_path):
    (tmp_path / "text.en").unlink()
    failure = command("prepare", corpus_recipe)
    assert failure.code == 1
    assert "text.en" in failure.message
    assert not (tmp_path / "dataset").exists()


def test_a_wrong_hash_is_reported_with_the_corpus(command, corpus_recipe, tmp_path):
    wrong = "0" * 64
    failure = command("prepare", corpus_recipe, f"data.train.0.source_sha256={wrong!r}")
    assert failure.code == 1
    assert wrong in failure.message
    assert "text.fr" in failure.message
    assert not (tmp_path / "dataset").exists()


def test_a_corpus_with_unequal_sides_is_refused(command, corpus_recipe, tmp_path):
    with (tmp_path / "text.en").open("a") as file:
        file.write("one line too many\n")
    failure = command("prepare", corpus_recipe)
    assert failure.code == 1
    assert "200" in failure.message
    assert "201" in failure.message
    assert not (tmp_path / "dataset").exists()


def test_a_too_long_held_out_sentence_is_refused(command, corpus_recipe, tmp_path, monkeypatch):
    """`prepare` refuses the sentence; training refuses a dataset that contains it before step 1."""
    for side in ("fr", "en"):
        text = (tmp_path / f"text.{side}").read_text().splitlines()
        text[11] = f"{side} mot " * (2000 if side == "fr" else 1)
        (tmp_path / f"held.{side}").write_text("\n".join(text))
    held = {"source": str(tmp_path / "held.fr"), "target": str(tmp_path / "held.en")}
    override = f"data.validation={json.dumps(held)}"
    failure = command("prepare", corpus_recipe, override)
    assert failure.code == 1
    assert "held.fr, line 12 (data.validation): " in failure.message
    assert "but a held-out sentence may have at most 1,024" in failure.message
    assert not (tmp_path / "dataset").exists()

    arguments = ["prepare", str(corpus_recipe), override, "data.max_heldout_length=100000"]
    monkeypatch.setattr(sys, "argv", ["transloom", *arguments])
    with pytest.raises(SystemExit) as done:
        app.main()
    assert not done.value.code
    run = tmp_path / "run"
    failure = command("train", corpus_recipe, override, "--inline", "--run", run)
    assert failure.code == 1
    assert "The held-out set validation of the dataset" in failure.message
    assert "line 12 of src: " in failure.message
    assert not list(run.glob("checkpoints/step-*"))


def test_an_unknown_key_and_an_invalid_override_are_usage_errors(command, recipe):
    failure = command("train", recipe, "trainer.max_step=3")
    assert failure.code == 2
    assert "did you mean trainer.max_steps?" in failure.message
    failure = command("train", recipe, "trainer.max_steps")
    assert failure.code == 2
    assert "key=value" in failure.message


@pytest.mark.parametrize(
    ("overrides", "code", "parts"),
    [
        (["cluster.ranks=6"], 2, ["cluster.ranks is 6", "only 5 micro-batches"]),
        (["engine.precision=bf16", "engine.zero_stage=0"], 2, ["use zero_stage 1, 2 or 3"]),
        (["data.dataset=absent"], 1, ["transloom prepare"]),
        (
            ["tokenizer.vocabulary_size=900"],
            1,
            ["tokenizer.vocabulary_size: 1000 in the dataset, 900 in the recipe"],
        ),
        (["batching.max_tokens_per_micro_batch=8"], 1, ["max_tokens_per_micro_batch"]),
    ],
    ids=["ranks", "bf16 without sharded moments", "no dataset", "another dataset", "budget"],
)
def test_impossible_settings_fail(command, recipe, tmp_path, monkeypatch, overrides, code, parts):
    monkeypatch.chdir(tmp_path)
    failure = command("train", recipe, *overrides)
    assert failure.code == code
    assert all(part in failure.message for part in parts)


def test_an_identity_field_of_an_existing_run_cannot_change(command, recipe, run):
    record = (run / "metrics.jsonl").read_bytes()
    failure = command("train", recipe, "--inline", "--run", run, "model.dropout=0.2")
    assert failure.code == 1
    assert "model.dropout: 0.1 there, 0.2 here" in failure.message
    assert (run / "metrics.jsonl").read_bytes() == record


def test_a_dataset_that_does_not_fit_the_run_is_refused(command, recipe, phrasebook, run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(phrasebook, copy)
    manifest = copy / "manifest.json"
    manifest.write_text(manifest.read_text() + "\n")  # a different hash for the same content
    failure = command("train", recipe, "--inline", "--run", run, f"data.dataset={copy}")
    assert failure.code == 1
    assert "was started with a dataset of identity" in failure.message


def test_a_checkpoint_of_another_run_is_refused(command, recipe, run):
    rewrite_header(run / "checkpoints" / "step-00000004", dataset_identity="f" * 64)
    failure = command("train", recipe, "--inline", "--run", run, "trainer.max_steps=8")
    assert failure.code == 1
    assert "belongs to another run or dataset" in failure.message


def test_a_damaged_shard_ends_the_run_with_its_name(command, recipe, phrasebook, tmp_path, runs):
    copy = tmp_path / "copy"
    shutil.copytree(phrasebook, copy)
    for shard in (copy / "shards").iterdir():
        data = bytearray(shard.read_bytes())
        data[len(data) // 2] ^= 1
        shard.write_bytes(data)
    run = tmp_path / "run"
    # With two ranks, one of which only loses its connection to the other, the cause is shown.
    options = ["--run", run, f"data.dataset={copy}", "cluster.ranks=2"]
    failure = command("train", recipe, *options, "--address", runs.address)
    assert failure.code == 1
    assert ".tar" in failure.message
    assert "sha256" in failure.message


def test_ids_beyond_the_vocabulary_end_a_run_before_its_first_step(
    command, recipe, phrasebook, tmp_path
):
    """The author of the shard also wrote its hash into the manifest."""
    copy = Path(shutil.copytree(phrasebook, tmp_path / "copy"))
    manifest = Manifest.load(open_store(copy))
    for shard in manifest.shards:
        file = copy / shard.name
        blocks = unpack_shard(file.read_bytes(), shard)
        for block in blocks:
            field = block.fields["tgt"]
            ids = field.ids.copy()
            ids[7] = 1000
            block.fields["tgt"] = FieldArrays(ids, field.lengths)
        file.write_bytes(pack_shard(blocks))
    content = json.loads((copy / "manifest.json").read_text())
    for shard in content["shards"]:
        data = (copy / shard["name"]).read_bytes()
        shard |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (copy / "manifest.json").write_text(json.dumps(content))
    run = tmp_path / "run"
    failure = command("train", recipe, "--inline", "--run", run, f"data.dataset={copy}")
    assert failure.code == 1
    assert "shards/train-000" in failure.message
    assert "expected ids below the vocabulary's size 1,000 in tgt of" in failure.message
    assert "found id 1,000 in sequence" in failure.message
    assert (run / "metrics.jsonl").read_bytes() == b""
    verified = command("data", "verify", copy)
    assert verified.code == 1


def test_too_few_cpus_for_a_rank_are_reported(command, recipe, runs):
    options = ["cluster.cpus_per_rank=1000", "cluster.wait_for_ranks_seconds=1"]
    failure = command("train", recipe, *options, "--address", runs.address)
    assert failure.code == 1
    assert "1,000 CPUs" in failure.message
    assert "cluster.ranks" in failure.message


def test_a_missing_run_checkpoint_or_test_set_is_reported(command, run, tmp_path):
    assert "is no run" in command("translate", tmp_path / "absent").message
    assert "is no run" in command("checkpoints", "list", tmp_path / "absent").message
    failure = command("translate", run, "--checkpoint", 3)
    assert failure.code == 1
    assert "no checkpoint of step 3. Name one of its checkpoints: [4]" in failure.message
    failure = command("evaluate", run, "--set", "newstest")
    assert failure.code == 1
    assert "no test set newstest" in failure.message
    assert "phrasebook" in failure.message


def test_a_damaged_checkpoint_is_reported_by_verify_and_translate(command, recipe, run):
    state: Path = next((run / "checkpoints").rglob("*.safetensors"))
    state.write_bytes(state.read_bytes()[:-1])
    assert command("checkpoints", "verify", run).code == 1
    failure = command("translate", run)
    assert failure.code == 1
    assert "it is damaged" in failure.message


def test_a_run_whose_checkpoints_are_all_damaged_does_not_start_over(command, recipe, run):
    state: Path = next((run / "checkpoints").rglob("*.safetensors"))
    state.write_bytes(state.read_bytes()[:-1])
    failure = command("train", recipe, "--inline", "--run", run, "trainer.max_steps=8")
    assert failure.code == 1
    assert "No checkpoint" in failure.message
    assert "it is damaged" in failure.message
    assert state.exists()


def test_a_checkpoint_that_ranks_find_damaged_is_set_aside(command, recipe, tmp_path, runs):
    """The file's size is right, so only the ranks, which hash the file, find the damage."""
    run = tmp_path / "run"
    options = ["--run", run, "cluster.ranks=2", "--address", runs.address]
    options.append("checkpoints.every_steps=2")
    first = command("train", recipe, *options, "trainer.max_steps=4")
    assert first.code == 0, first.message
    state = sorted((run / "checkpoints/step-00000004").glob("*.safetensors"))[1]
    data = bytearray(state.read_bytes())
    data[-1] ^= 1
    state.write_bytes(data)
    assert command("train", recipe, *options, "trainer.max_steps=6").code == 0
    log = (run / "log.txt").read_text()
    assert f"{state} has sha256" in log
    assert "it was renamed to damaged-step-00000004, and the previous" in log
    assert "from the checkpoint of step 2" in log
    names = {path.name for path in (run / "checkpoints").iterdir()}
    assert {"damaged-step-00000004", "step-00000006"} <= names


def test_non_finite_steps_are_skipped_and_three_in_a_row_end_the_run(command, recipe, tmp_path):
    run = tmp_path / "run"
    schedule = "{type: constant, peak_learning_rate: 1.0e+30, warmup_steps: 0}"
    options = ["--inline", "--run", run, "checkpoints.every_steps=1"]
    failure = command("train", recipe, *options, f"trainer.schedule={schedule}")
    assert failure.code == 1
    assert "3 steps in a row, up to step 4" in failure.message
    assert f"newest good checkpoint is {run}/checkpoints/step-00000003" in failure.message
    assert "learning rate" in failure.message
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["kind"]) for line in lines] == [
        (1, "train"),
        (2, "skipped"),
        (3, "skipped"),
        (4, "skipped"),
    ]
    assert [line["slots"] for line in lines[1:]] == [[0, 1, 2, 3, 4]] * 3
    headers = [header_of(run / "checkpoints" / f"step-0000000{step}") for step in (1, 3)]
    assert headers[0].files == headers[1].files  # weights and moments are those of step 1
    assert [header.optimizer_step for header in headers] == [1, 1]
