"""`transloom replay` of runs of one rank without Ray: equal bits, first differences, --look.

tests/integration/test_tasks.py replays runs that were killed or resized, and with several ranks.
"""

import hashlib
import json
import math
import shutil

import pytest
from click import UsageError
from support.poisoned import SOURCE, poisoned_recipe
from support.recipes import write_yaml
from support.records.checkpoints import rewrite_header
from support.runs import Runs
from support.tasks import language_model_values

from cluster.errors import RecipeError
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.storage.store import open_store
from run_store.errors import RunError
from run_store.record.metrics_file import train_lines
from run_store.record.metrics_lines import Resumed


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory):
    """Return the folder of a run of 40 steps whose second corpus is one pair of garbage."""
    folder = tmp_path_factory.mktemp("poisoned")
    recipe = poisoned_recipe(folder)
    runs = Runs(recipe, folder, "")
    runs.train("run", inline=True)
    return folder


@pytest.fixture
def copied(poisoned, tmp_path):
    """Return a folder with a copy of the run and its dataset, which a test may change."""
    for name in ("run", "dataset"):
        shutil.copytree(poisoned / name, tmp_path / name)
    recipe = tmp_path / "run" / "recipe.yaml"
    moved = recipe.read_text().replace(str(poisoned / "dataset"), str(tmp_path / "dataset"))
    recipe.write_text(moved)
    return tmp_path


def replayed(transloom, run, *options, exit_code=0):
    result = transloom("replay", run, *options, "--json")
    assert result.exit_code == exit_code, result.output
    return json.loads(result.stdout)


def everything_in(folder):
    """Return the hash, time, mode and link count of each file and folder, by path."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mtime_ns,
            path.stat().st_mode,
            path.stat().st_nlink,
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None,
        )
        for path in [folder, *folder.rglob("*")]
    }


def test_replay_computes_the_same_bits_and_changes_no_file_of_the_run(poisoned, transloom):
    before = everything_in(poisoned / "run")
    look = replayed(transloom, poisoned / "run", "--steps", "18:31", "--look")
    assert everything_in(poisoned / "run") == before
    verdict = look["verdict"]
    assert verdict["same"]
    assert verdict["to_the_last_bit"]
    assert (verdict["data"], verdict["losses"], verdict["state"]) == ("same", "same", "same")
    assert (look["replayed_from"], look["steps_trained"]) == (10, 21)
    assert verdict["state_steps"] == [20, 30]
    assert verdict["first_difference"] is None
    assert [step["step"] for step in look["steps"]] == list(range(18, 32))


@pytest.mark.long
def test_the_examples_of_a_look_sum_to_the_recorded_loss_and_gradient_norm(poisoned, transloom):
    manifest = Manifest.load(open_store(str(poisoned / "dataset")))
    lines = {line.step: line for line in train_lines(poisoned / "run" / "metrics.jsonl")}
    look = replayed(transloom, poisoned / "run", "--steps", "21:23", "--look")
    for step in look["steps"]:
        line, examples = lines[step["step"]], step["examples"]
        assert step["loss"] == step["recorded_loss"] == line.loss
        assert sum(e["tokens"] for e in examples) == line.target_tokens
        total = math.fsum(e["loss"] * e["tokens"] for e in examples)
        assert total / line.target_tokens == pytest.approx(line.nll, rel=1e-5)
        assert math.fsum(e["share"] for e in examples) == pytest.approx(1)
        losses = [e["loss"] for e in examples]
        assert losses == sorted(losses, reverse=True)
        squares = math.fsum(norm**2 for norm in step["gradient_norms"].values())
        assert math.sqrt(squares) == pytest.approx(line.grad_norm, rel=1e-5)
        traced = json.loads(
            transloom("data", "trace", poisoned / "run", "--steps", step["step"], "--json").stdout
        )[0]
        for number, slot in enumerate(traced["slots"]):
            seen = [e["example"] for e in examples if e["slot"] == number]
            assert sorted(seen) == sorted(slot["sample_ids"])
        for example in examples:
            (shard,) = [s for s in manifest.shards if s.name == example["shard"]]
            assert shard.first_pair <= example["example"] < shard.first_pair + shard.pairs
            assert manifest.corpora[shard.corpus].name == example["corpus"]
            assert example["rank"] == 0
            if example["corpus"] == "plain":
                assert example["texts"]["source"] == example["texts"]["target"]
        for span in step["activations"].values():
            assert span["minimum"] <= span["mean"] <= span["maximum"]
            assert span["largest_magnitude"] == max(-span["minimum"], span["maximum"])
        assert {"encoder.layers.0", "decoder.layers.0"} <= step["activations"].keys()


@pytest.mark.long
def test_replay_worst_shows_the_garbage_pair_of_the_worst_step(poisoned, transloom):
    (step,) = replayed(transloom, poisoned / "run", "--worst", "--look")["steps"]
    worst = step["examples"][0]
    assert worst["corpus"] == "poison"
    assert worst["texts"]["source"] == SOURCE
    told = transloom("replay", poisoned / "run", "--steps", "30:40", "--worst", "--look")
    assert told.exit_code == 0
    assert "poison" in told.stdout


@pytest.mark.long
def test_replay_names_the_step_and_the_shard_if_a_byte_has_changed(copied, transloom):
    trace = ("data", "trace", copied / "run", "--steps")
    ids = json.loads(transloom(*trace, "34", "--json").stdout)[0]["slots"][0]["sample_ids"]
    manifest = Manifest.load(open_store(str(copied / "dataset")))
    shard = next(s for s in manifest.shards if s.first_pair <= ids[0] < s.first_pair + s.pairs)
    file = copied / "dataset" / shard.name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    look = replayed(transloom, copied / "run", "--steps", "22:36", exit_code=1)
    verdict = look["verdict"]
    assert (verdict["data"], verdict["same"]) == ("unreadable", False)
    first = verdict["first_difference"]
    assert first["what"] == "data"
    assert shard.name in first["details"][0]
    step = first["step"]
    assert 20 < step <= 34
    # All earlier steps of the replay can be read; this step cannot.
    if step > 21:
        assert transloom(*trace, step - 1).exit_code == 0
    with pytest.raises(Exception, match=shard.name):
        transloom(*trace, step)
    told = transloom("replay", copied / "run", "--steps", "22:36")
    assert told.exit_code == 1
    flat = " ".join(told.stdout.split())
    assert f"step {step} differs in data: {shard.name}" in flat


@pytest.mark.long
def test_replay_reports_the_first_difference_from_the_record(copied, transloom):
    """The loss of step 23 and the checkpoint of step 30 are changed after the training."""
    record = copied / "run" / "metrics.jsonl"
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    for line in lines:
        if line["kind"] == "train" and line["step"] == 23:
            line["loss"] = math.nextafter(line["loss"], 99)
            loss = line["loss"]
    record.write_text("".join(json.dumps(line) + "\n" for line in lines))
    checkpoints = copied / "run" / "checkpoints"
    shutil.rmtree(checkpoints / "step-00000030")
    shutil.copytree(checkpoints / "step-00000020", checkpoints / "step-00000030")
    rewrite_header(checkpoints / "step-00000030", step=30)
    verdict = replayed(transloom, copied / "run", "--steps", "22:31", exit_code=1)["verdict"]
    assert (verdict["data"], verdict["losses"], verdict["state"]) == ("same",) + ("different",) * 2
    first = verdict["first_difference"]
    assert (first["step"], first["what"], first["recorded"]) == (23, "loss", loss)
    # A step replayed from the wrong state has different data and a different loss.
    verdict = replayed(transloom, copied / "run", "--steps", "31", exit_code=1)["verdict"]
    assert (verdict["data"], verdict["losses"]) == ("different", "different")
    assert verdict["first_difference"]["what"] == "data"


@pytest.mark.long
def test_replay_starts_from_an_earlier_checkpoint_if_one_is_damaged(copied, transloom):
    (state,) = (copied / "run" / "checkpoints" / "step-00000010").glob("*.safetensors")
    content = bytearray(state.read_bytes())
    content[-1] ^= 1
    state.write_bytes(content)
    result = transloom("replay", copied / "run", "--steps", "11:12", "--json")
    assert json.loads(result.stdout)["replayed_from"] == 0
    assert "an earlier checkpoint is used" in " ".join(result.stderr.split())
    assert "12 steps to train again, 1 to 12, from step 0" in " ".join(result.stderr.split())


@pytest.mark.long
def test_replay_omits_a_quarantined_shard_from_the_same_step_as_the_run(copied, transloom):
    """The run continued without the shard, which is restored before the replay."""
    runs = Runs(copied / "run" / "recipe.yaml", copied, "")
    ids = json.loads(transloom("data", "trace", copied / "run", "--steps", "41", "--json").stdout)[
        0
    ]["slots"][0]["sample_ids"]
    manifest = Manifest.load(open_store(str(copied / "dataset")))
    lost = next(s for s in manifest.shards if s.first_pair <= ids[0] < s.first_pair + s.pairs)
    transloom("data", "quarantine", copied / "dataset", lost.name, "--reason", "lost")
    (copied / "dataset" / lost.name).rename(copied / "kept.tar")
    runs.train("run", "trainer.max_steps=46", inline=True)
    (copied / "kept.tar").rename(copied / "dataset" / lost.name)
    look = replayed(transloom, copied / "run", "--steps", "38:44", "--look")
    assert look["verdict"]["same"], look["verdict"]
    assert (look["replayed_from"], look["verdict"]["state_steps"]) == (30, [40])
    shards = {e["shard"] for step in look["steps"][3:] for e in step["examples"]}
    assert lost.name not in shards


@pytest.mark.long
def test_replay_of_a_warm_started_run_uses_its_original_weights(copied, transloom):
    runs = Runs(copied / "run" / "recipe.yaml", copied, "")
    origin = f"trainer.init_from={copied / 'run'}"
    runs.train("warm", origin, "trainer.max_steps=4", inline=True)
    runs.train("run", "trainer.max_steps=41", inline=True)  # its newest weights are now different
    look = replayed(transloom, copied / "warm", "--steps", "2:4")
    assert look["verdict"]["same"], look["verdict"]
    assert (look["replayed_from"], look["verdict"]["state_steps"]) == (0, [4])


@pytest.mark.long
def test_replay_with_fast_numerics_and_other_attention_allows_rounding(copied, transloom):
    fast = Runs(copied / "run" / "recipe.yaml", copied, "")
    fast.train("fast", "engine.numerics=fast", "trainer.max_steps=6", inline=True)
    verdict = replayed(transloom, copied / "fast", "--steps", "3:6")["verdict"]
    assert (verdict["to_the_last_bit"], verdict["state"]) == (True, "same")
    other = replayed(transloom, copied / "fast", "engine.attention=sdpa", "--steps", "3:6")
    verdict = other["verdict"]
    assert (verdict["same"], verdict["losses"], verdict["state"]) == (True, "same", "not_compared")
    assert not verdict["to_the_last_bit"]
    assert "only up to rounding, because attention was matmul and is sdpa" in verdict["promise"]


@pytest.mark.long
def test_replay_of_a_resumed_language_model_under_zero_3(tmp_path, phrasebook_documents, transloom):
    """Under ZeRO-3, each pass records the order in which it fetches parameters."""
    values = language_model_values(phrasebook_documents)
    values["engine"]["zero_stage"] = 3
    values["trainer"]["validate_every_steps"] = 8
    recipe = write_yaml(tmp_path / "lm.yaml", values)
    runs = Runs(recipe, tmp_path, "")
    runs.train("lm", "trainer.max_steps=6", inline=True)
    runs.train("lm", "trainer.max_steps=10", inline=True)
    look = replayed(transloom, tmp_path / "lm", "--steps", "8:9", "--look")
    assert (look["verdict"]["same"], look["replayed_from"]) == (True, 6)
    lines = {line.step: line for line in train_lines(tmp_path / "lm" / "metrics.jsonl")}
    for step in look["steps"]:
        line = lines[step["step"]]
        total = math.fsum(e["loss"] * e["tokens"] for e in step["examples"])
        assert total / line.target_tokens == pytest.approx(line.nll, rel=1e-5)
        squares = math.fsum(norm**2 for norm in step["gradient_norms"].values())
        assert math.sqrt(squares) == pytest.approx(line.grad_norm, rel=1e-5)
        assert all(e["start"] is not None for e in step["examples"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--steps", "39:41"), "Step 41 of .* cannot be replayed: .* 40 steps"),
        (("--steps", "39:40", "seed=7"), "seed is 3 in .*, but 7 was requested"),
        (("--steps", "39:40", "--ranks", "6"), "cluster.ranks is 6, but a step has only 5"),
        (("--steps", "1:3", "--worst"), "steps 1:3: none of them has 5"),
    ],
)
def test_replay_refuses_steps_and_ranks_that_the_run_lacks(poisoned, transloom, options, message):
    with pytest.raises((RunError, RecipeError), match=message):
        transloom("replay", poisoned / "run", *options)


@pytest.mark.parametrize("key", ["extension_folder", "extensions", "seed", "trainer.no_setting"])
def test_replay_refuses_a_record_that_changes_a_fixed_setting(copied, transloom, key):
    """Otherwise the replay would execute code that the record names."""
    changed = Resumed(step=40, from_step=40, settings_changed={key: ["ext_theirs", None]})
    with (copied / "run" / "metrics.jsonl").open("a") as record:
        record.write(f"{changed.to_json()}\n")
    with pytest.raises(RunError, match=rf"the run changed {key}, .* continuable fields"):
        transloom("replay", copied / "run", "--steps", "1:2")


def test_replay_requires_steps_or_worst(poisoned, transloom):
    assert transloom("replay", poisoned / "run").exit_code == UsageError.exit_code


@pytest.mark.long
def test_no_line_of_the_replay_report_has_over_100_columns(poisoned, transloom):
    result = transloom("replay", poisoned / "run", "--steps", "12", "--look", "--examples", "3")
    assert max(len(line.rstrip()) for line in result.stdout.splitlines()) <= 100
    assert "the same bits in every step" in result.stdout
