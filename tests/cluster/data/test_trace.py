"""Trace the data of a run's steps, compared with what the run recorded while it trained."""

import io
import json
import shutil

import pytest
from rich.console import Console

from cluster.recipe import load_recipe
from cluster.supervision.run_checks import check_run, open_run
from data_pipeline.batching.plan import Cursor
from data_pipeline.batching.stream import local_rank_steps
from data_pipeline.batching.window import WindowReader
from data_pipeline.dataset.manifest import Manifest, open_dataset
from data_pipeline.storage.store import open_store
from run_store.checkpoints.checkpoint import Checkpoint
from run_store.checkpoints.folder_names import list_checkpoints
from run_store.errors import RunMismatchError
from run_store.folder import RunFolder
from run_store.record.metrics_file import read_metrics, train_lines
from run_store.record.metrics_lines import Resumed
from transloom.cli.prepare import prepare_dataset
from transloom.inference.translator import Translator

STEPS = 7


class Trained:
    """Run and its dataset, both of which a test may change."""

    def __init__(self, folder, recipe, transloom):
        self.path, self.dataset = folder / "run", folder / "dataset"
        self._recipe, self._transloom = recipe, transloom

    def train(self, steps=STEPS, *overrides):
        arguments = (f"data.dataset={self.dataset}", f"trainer.max_steps={steps}", *overrides)
        command = ("train", self._recipe, *arguments, "--inline", "--run", self.path)
        assert self._transloom(*command).exit_code == 0

    def trace(self, steps, *options, exit_code=0):
        result = self._transloom("data", "trace", self.path, "--steps", steps, "--json", *options)
        assert result.exit_code == exit_code
        return json.loads(result.stdout)

    def lines(self):
        return train_lines(self.path / "metrics.jsonl")

    def digests(self):
        return [line.data_digest for line in self.lines()]

    def quarantine_shard_of(self, sample):
        """Quarantine the shard that contains a sample, and return the shard's name."""
        manifest = Manifest.load(open_store(self.dataset))
        (name,) = [
            s.name for s in manifest.shards if s.first_pair <= sample < s.first_pair + s.pairs
        ]
        self._transloom("data", "quarantine", self.dataset, name, "--reason", "lost")
        return name


@pytest.fixture(scope="module")
def trained_once(two_corpora, tmp_path_factory):
    """Return a folder with a dataset and a run of 7 steps with checkpoints 3, 6 and 7.

    Tests do not change the folder.
    """
    from transloom.cli.train_run import TrainOptions, train_run

    folder = tmp_path_factory.mktemp("trained")
    overrides = [f"data.dataset={folder / 'dataset'}", "checkpoints.every_steps=3"]
    quiet = Console(file=io.StringIO())
    prepare_dataset(load_recipe(two_corpora, overrides), quiet, overwrite=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        train_run(str(two_corpora), overrides, TrainOptions(folder / "run", inline=True), quiet)
    return folder


@pytest.fixture
def trained(trained_once, tmp_path, two_corpora, transloom):
    """Return a copy of the run and its dataset."""
    for name in ("run", "dataset"):
        shutil.copytree(trained_once / name, tmp_path / name)
    recipe = (tmp_path / "run" / "recipe.yaml").read_text()
    moved = recipe.replace(str(trained_once / "dataset"), str(tmp_path / "dataset"))
    (tmp_path / "run" / "recipe.yaml").write_text(moved)
    return Trained(tmp_path, two_corpora, transloom)


def test_the_trace_of_each_recorded_step_equals_the_record(trained):
    steps = trained.trace(f"1:{STEPS}")
    assert [step["step"] for step in steps] == list(range(1, STEPS + 1))
    for step, line in zip(steps, trained.lines(), strict=True):
        assert step["data_digest"] == step["recorded_digest"] == line.data_digest
        assert step["cursor"] == line.cursor.to_json()
        assert step["target_tokens"] == line.target_tokens
        assert step["equal"]
    assert len({step["cursor"]["window"] for step in steps}) > 2


def test_a_step_has_the_same_trace_alone_and_within_a_range(trained):
    together = trained.trace(f"1:{STEPS}")
    for step in (1, 2, 5, STEPS):
        assert trained.trace(step) == [together[step - 1]]


def test_a_trace_shows_the_sample_ids_of_each_slot(trained):
    recipe = load_recipe(trained.path / "recipe.yaml")
    store, manifest = open_dataset(recipe.data)
    reader = WindowReader(store, manifest, recipe.data_settings)
    slots = recipe.batching.micro_batches_per_step
    steps = local_rank_steps(reader, Cursor(), 0, 1, slots)
    for traced, fed in zip(trained.trace("1:4"), steps, strict=False):
        expected = [batch.pair_ids.tolist() for batch in fed.micro_batches]
        assert [slot["sample_ids"] for slot in traced["slots"]] == expected


def test_a_trace_needs_only_checkpoints_if_the_metrics_file_is_lost(trained):
    expected = trained.digests()
    (trained.path / "metrics.jsonl").unlink()
    steps = trained.trace(f"1:{STEPS}")
    assert [step["data_digest"] for step in steps] == expected
    recorded = [step["step"] for step in steps if step["equal"]]
    assert recorded == [3, 6, 7]
    assert trained.trace("6:7") == steps[5:]


def test_a_trace_needs_only_the_metrics_file_if_checkpoints_are_lost(trained):
    shutil.rmtree(trained.path / "checkpoints")
    assert [step["data_digest"] for step in trained.trace(f"1:{STEPS}")] == trained.digests()


def test_a_trace_skips_an_unreadable_checkpoint(trained):
    (trained.path / "checkpoints" / "step-00000006" / "checkpoint.json").write_text("{")
    (trained.path / "metrics.jsonl").unlink()
    assert trained.trace(STEPS)[0]["equal"]


def test_a_trace_of_future_steps_equals_what_training_later_reads(trained):
    coming = trained.trace(f"{STEPS + 1}:{STEPS + 4}")
    assert {step["equal"] for step in coming} == {None}
    trained.train(STEPS + 4)
    assert [step["data_digest"] for step in coming] == trained.digests()[STEPS:]


def test_a_run_without_trained_steps_can_be_traced(trained, two_corpora, tmp_path):
    recipe = load_recipe(two_corpora, [f"data.dataset={trained.dataset}"])
    trained.path, expected = tmp_path / "untrained", trained.digests()
    run = RunFolder(trained.path)
    open_run(recipe, run, *check_run(recipe, run))
    assert [step["data_digest"] for step in trained.trace(f"1:{STEPS}")] == expected


def test_a_trace_marks_steps_that_differ_from_the_record(trained, transloom):
    record = trained.path / "metrics.jsonl"
    digest = trained.digests()[3]
    record.write_text(record.read_text().replace(digest, "f" * 64))
    steps = trained.trace("3:6", exit_code=1)
    # The digest of step 5 continues that of step 4, so it differs, too.
    assert [step["equal"] for step in steps] == [True, False, False, True]
    told = " ".join(transloom("data", "trace", trained.path, "--steps", "3:6").stdout.split())
    assert f"DIFFERENT: the record has {'f' * 16}…" in told
    assert "DIFFERENT from the record: step 4, 5." in told


def test_a_trace_fits_a_terminal_of_80_columns(trained, transloom):
    output = transloom("data", "trace", trained.path, "--steps", f"{STEPS}:{STEPS + 1}").stdout
    assert max(len(line.rstrip()) for line in output.splitlines()) <= 80
    assert "equal to the record" in output
    assert "not in the record" in output
    assert "1 of 2 steps are recorded, with equal digests." in output
    (step,) = trained.trace(STEPS)
    slot = step["slots"][0]
    *shown, more = slot["sample_ids"][:7]
    assert more
    assert f"{slot['digest'][:16]}…  {' '.join(map(str, shown))} …" in output


def test_a_trace_reads_a_dataset_that_was_moved(trained, tmp_path):
    trained.dataset.rename(tmp_path / "moved")
    (step,) = trained.trace(5, "--dataset", tmp_path / "moved")
    assert step["equal"]


def test_a_trace_refuses_a_dataset_the_run_did_not_use(trained, transloom, two_corpora, tmp_path):
    other = tmp_path / "other"
    transloom("prepare", two_corpora, f"data.dataset={other}", "data.pairs_per_block=8")
    with pytest.raises(RunMismatchError, match="used the dataset of manifest"):
        trained.trace(5, "--dataset", other)


def test_a_trace_follows_a_quarantine_in_the_middle_of_a_window(trained):
    (following,) = trained.trace(STEPS + 1)
    assert following["cursor"]["offset"] > 0
    shard = trained.quarantine_shard_of(following["slots"][0]["sample_ids"][0])
    coming = trained.trace(f"{STEPS + 1}:{STEPS + 6}")
    trained.train(STEPS + 6)
    record = read_metrics(trained.path / "metrics.jsonl")
    (resumed,) = [line for line in record if isinstance(line, Resumed)]
    assert resumed.quarantined == [shard]
    assert resumed.window_left_at is not None
    assert [step["data_digest"] for step in coming] == trained.digests()[STEPS:]
    # Steps before the quarantine contain the shard, later steps do not.
    steps = trained.trace(f"1:{STEPS + 6}")
    assert [step["data_digest"] for step in steps] == trained.digests()
    # The run resumes again from a checkpoint before the quarantine; the trace stays the same.
    shutil.rmtree(trained.path / "checkpoints" / f"step-{STEPS + 6:08d}")
    trained.train(STEPS + 2)
    assert trained.trace(f"1:{STEPS + 6}") == steps
    shutil.rmtree(trained.path / "checkpoints")
    assert trained.trace(f"1:{STEPS + 6}") == steps


@pytest.mark.long
def test_steps_repeated_without_a_quarantined_shard_are_traced(trained):
    before = trained.digests()
    for step in (6, 7):  # then the run resumes from step 3
        shutil.rmtree(trained.path / "checkpoints" / f"step-{step:08d}")
    ids = trained.trace(5)[0]["slots"][0]["sample_ids"]
    trained.quarantine_shard_of(ids[0])
    coming = trained.trace(f"1:{STEPS}")
    assert [step["equal"] for step in coming] == [True] * 3 + [None] * (STEPS - 3)
    trained.train(STEPS + 2)
    steps = trained.trace(f"1:{STEPS + 2}")
    assert all(step["equal"] for step in steps)
    assert [s["data_digest"] for s in steps[:STEPS]] == [s["data_digest"] for s in coming]
    assert steps[STEPS - 1]["data_digest"] != before[-1]
    newest = Checkpoint(list_checkpoints(trained.path / "checkpoints")[-1])
    assert steps[-1]["data_digest"] == newest.header.data_digest
    assert [trained.trace(step["step"]) for step in steps] == [[step] for step in steps]


def test_steps_of_which_only_some_were_repeated_are_traced(trained):
    for step in (6, 7):
        shutil.rmtree(trained.path / "checkpoints" / f"step-{step:08d}")
    ids = trained.trace(5)[0]["slots"][0]["sample_ids"]
    trained.quarantine_shard_of(ids[0])
    trained.train(5)  # now the record of steps 6 and 7 is outdated
    coming = trained.trace("1:9")
    assert [step["equal"] for step in coming] == [True] * 5 + [None] * 4
    trained.train(9)
    steps = trained.trace("1:9")
    assert all(step["equal"] for step in steps)
    assert [s["data_digest"] for s in steps] == [s["data_digest"] for s in coming]


@pytest.mark.long
def test_a_run_that_restarted_at_step_0_without_a_shard_is_traced(trained):
    for path in list_checkpoints(trained.path / "checkpoints"):
        shutil.rmtree(path)
    ids = trained.trace(2)[0]["slots"][0]["sample_ids"]
    trained.quarantine_shard_of(ids[0])
    trained.train(STEPS)
    newest = Checkpoint(list_checkpoints(trained.path / "checkpoints")[-1])
    steps = trained.trace(f"1:{STEPS}")
    assert all(step["equal"] for step in steps)
    assert steps[-1]["data_digest"] == newest.header.data_digest
    assert [trained.trace(step["step"]) for step in steps] == [[step] for step in steps]


def test_a_trace_is_refused_after_a_quarantine_was_undone(trained):
    manifest = (trained.dataset / "manifest.json").read_bytes()
    ids = trained.trace(STEPS)[0]["slots"][-1]["sample_ids"]
    trained.quarantine_shard_of(ids[0])
    trained.train(STEPS + 1)
    (trained.dataset / "manifest.json").write_bytes(manifest)
    with pytest.raises(RunMismatchError, match="continued without the shards shards/"):
        trained.trace(2)


@pytest.mark.parametrize("steps", ["0:3", "5:2", "5:", ":5", "x", "-1", "1:2:3", "²"])
def test_invalid_steps_are_a_usage_error(trained, transloom, steps):
    result = transloom("data", "trace", trained.path, "--steps", steps)
    assert result.exit_code == 2
    assert steps in result.output


def test_transloom_workers_records_the_requested_number(trained, transloom, tmp_path):
    result = transloom("workers", trained.path, 3)
    assert "3 data workers" in result.stdout
    assert "log.txt" in result.stdout.replace("\n", "")
    assert RunFolder(trained.path).take_data_workers_request() == 3
    assert transloom("workers", trained.path, 0).exit_code == 2
    assert RunFolder(trained.path).take_data_workers_request() is None
    with pytest.raises(RunMismatchError):
        transloom("workers", tmp_path, 1)


def test_translate_puts_a_tag_before_sentences(trained, transloom, tmp_path):
    sentences = tmp_path / "sentences.txt"
    sentences.write_text("le chat rouge\nla maison\n")
    translator = Translator.load(trained.path)
    outputs = {}
    for tag in (None, "<2en>"):
        options = () if tag is None else ("--tag", tag)
        result = transloom("translate", trained.path, sentences, "--json", *options)
        found = [json.loads(line)["translations"] for line in result.stdout.splitlines()]
        expected = translator.translate_n_best(["le chat rouge", "la maison"], tag)
        assert [t[0]["score"] for t in found] == [t[0].score for t in expected]
        outputs[tag] = found
    assert outputs[None] != outputs["<2en>"]


def test_alignments_leave_out_the_tag(trained, transloom, tmp_path):
    """With a tag, each source position is one higher than without."""
    sentences, tag = ["le chat rouge voit la grande maison", "la maison"], "<2en>"
    file = tmp_path / "sentences.txt"
    file.write_text("\n".join(sentences))
    options = ("--json", "--alignments", "--n-best", 4, "--tag", tag)
    result = transloom("translate", trained.path, file, *options)
    translator = Translator.load(trained.path)
    found = [json.loads(line)["translations"] for line in result.stdout.splitlines()]
    looked_at = set()
    for sentence, best in zip(sentences, translator.translate_n_best(sentences, tag), strict=True):
        pieces = translator.align([sentence] * len(best), best, tag)
        ids = translator.source_ids(sentence)
        words = [translator.target_text(ids[: at + 1]).count(" ") for at in range(len(ids))]
        for translation, pairs in zip(found.pop(0), pieces, strict=True):
            sources = {words[source - 1] for source, _ in pairs if source > 0}
            assert {source for source, _ in translation["alignment"]} == sources
            looked_at |= {source for source, _ in pairs}
    assert len(looked_at) > 1, looked_at
