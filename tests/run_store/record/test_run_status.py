"""Status of a run, read from its folder: its owner, its progress, and its problems."""

import json
import os
import time
from datetime import UTC, datetime, timedelta

import pytest
from support.records.lines import COUNTED, skipped_line, train_line, validation_line
from support.records.run_folders import (
    dead_process,
    made_run,
    with_checkpoint,
    with_owner,
    with_status,
)

from cluster.supervision.invocation import current_start
from run_store.errors import RunInUseError
from run_store.folder import RunFolder
from run_store.lease import LEASE_SECONDS
from run_store.record import record_end, run_status
from run_store.record.log import DETAIL, ENDED, last_entries, log_entry
from run_store.record.metrics_lines import Preempted
from run_store.record.recorded_status import recorded_status, write_recorded_status
from run_store.record.run_status import is_run, run_status_of
from run_store.record.run_status_model import RunStatus
from run_store.record.vitals import RankVitals, Vitals

TWO_STEPS = (train_line(1), train_line(2))


@pytest.fixture
def run(tmp_path):
    return made_run(tmp_path / "run", *TWO_STEPS)


def standing_of(run):
    """Return the status that views show after the owner has written it."""
    return run_status_of(with_status(run))


def say(run, text, seconds_ahead=0.0):
    now = datetime.now(UTC) + timedelta(seconds=seconds_ahead)
    with (run / "log.txt").open("a") as log:
        log.write(log_entry(text, now))


def test_a_run_with_a_living_owner_is_training(run):
    standing = run_status_of(with_owner(run))
    assert standing.state == "training"
    assert standing.owner.process == os.getpid()
    assert (standing.step, standing.max_steps) == (2, 20)
    # Ten tokens per second, by the times of the lines.
    assert standing.numbers["target_tokens_per_second"] == 10
    assert standing.seconds_left == 18


def test_an_unexpected_exception_becomes_a_problem_of_the_run(run, monkeypatch, caplog):
    def fail(run):
        raise OverflowError("timestamp out of range")

    monkeypatch.setattr(run_status, "read_status", fail)
    standing = run_status_of(run)
    assert (standing.name, standing.state) == ("run", "damaged")
    assert standing.problems == [
        f"{run} cannot be read: {OverflowError('timestamp out of range')!r}"
    ]
    assert caplog.records[0].exc_info[0] is OverflowError


def test_a_status_file_of_a_former_owner_is_ignored(run):
    ranks = (RankVitals(rank=0, node="a", phase="step", step=2, silent_seconds=0.0),)
    with_status(with_owner(run), vitals=Vitals(time=1.0, ranks=ranks, memory_checkpoint=8))
    assert run_status_of(run).memory_checkpoint_step == 8
    assert run_status_of(run).vitals.ranks == ranks
    kept = (run / "status.json").read_text()
    with_owner(run)  # the same process owns the run again
    (run / "status.json").write_text(kept)
    standing = run_status_of(run)
    assert (standing.state, standing.step, standing.vitals) == ("training", 0, None)
    with_owner(run, process=dead_process())
    (run / "status.json").write_text(kept)
    standing = run_status_of(run)
    assert (standing.state, standing.step) == ("abandoned", 0)
    assert f"transloom status {run} --from-record" in standing.problems[0]


@pytest.mark.parametrize(
    "content",
    [None, "", "{", "[1]", '{"format_version": 2}', '{"state": "dreaming"}', "[" * 9_000_000],
    ids=["none", "empty", "torn", "a list", "another version", "another state", "too long"],
)
def test_a_run_without_a_readable_status_file_names_the_command_that_writes_it(run, content):
    if content is None:
        (run / "status.json").unlink()
    else:
        (run / "status.json").write_text(content)
    standing = run_status_of(run)
    assert (standing.name, standing.state) == ("run", "damaged" if content else "unknown")
    assert f"transloom status {run} --from-record" in standing.reason
    write_recorded_status(RunFolder(run))
    assert (run_status_of(run).state, run_status_of(run).step) == ("stopped", 2)
    assert run_status_of(run).problems == []


def test_counts_beyond_any_float_are_refused():
    counts = dict.fromkeys(("step", "priority", "ranks", "checkpoint_step"), 10**400)
    with pytest.raises(ValueError, match=r"(?s)step.*priority.*ranks.*checkpoint_step"):
        RunStatus.model_validate(counts)


def test_a_number_with_the_name_of_a_field_is_not_the_fields_value():
    status = RunStatus.from_json(b'{"numbers": {"job_owner": 1, "nll": 2}}')
    assert (status.value("job_owner"), status.value("nll")) == (None, 2)


def test_a_fifo_in_place_of_the_status_file_is_reported_without_waiting(run):
    (run / "status.json").unlink()
    os.mkfifo(run / "status.json")
    assert "it is a FIFO" in run_status_of(run).problems[0]


def test_write_recorded_status_refuses_a_run_that_is_training(run):
    with_owner(run)
    kept = (run / "status.json").read_text()
    with pytest.raises(RunInUseError, match="in use"):
        write_recorded_status(RunFolder(run))
    assert (run / "status.json").read_text() == kept


def test_a_copied_run_without_an_owner_is_stopped(run):
    owner = next((with_owner(run) / "owners").iterdir())
    owner.unlink()
    standing = run_status_of(run)
    assert (standing.state, standing.step, standing.seconds_left) == ("stopped", 2, None)


def test_a_run_whose_owner_was_killed_is_abandoned_at_its_last_recorded_step(run):
    with_owner(run, process=dead_process())
    with (run / "metrics.jsonl").open("a") as record:
        record.write(train_line(3).to_json() + "\n")
    assert (run_status_of(run).state, run_status_of(run).step) == ("abandoned", 2)
    write_recorded_status(RunFolder(run))
    assert (run_status_of(run).state, run_status_of(run).step) == ("abandoned", 3)
    write_recorded_status(RunFolder(with_checkpoint(run, 20)))
    assert run_status_of(run).state == "finished"


def test_write_recorded_status_keeps_facts_that_the_record_lacks(run):
    nodes = {"10.0.0.1 (ab)": 2, "10.0.0.2 (cd)": 1}
    start = current_start()
    with_status(run, ranks=3, nodes=nodes, start=start)
    write_recorded_status(RunFolder(run))
    standing = run_status_of(run)
    assert (standing.ranks, standing.nodes, standing.start) == (3, nodes, start)


def test_speed_in_operations_is_shown_only_if_each_step_has_a_count(tmp_path):
    counted = [train_line(step, **COUNTED) for step in (1, 2, 3)]
    standing = standing_of(made_run(tmp_path / "counted", *counted))
    assert standing.numbers["tflops_per_second"] == 4.0  # one step per second by the lines' times
    assert standing.numbers["mfu"] == pytest.approx(0.2)  # of a peak of 20 TFLOP/s
    older = [train_line(1), train_line(2), counted[2]]
    standing = standing_of(made_run(tmp_path / "older", *older))
    assert not {"tflops_per_second", "mfu"} & standing.numbers.keys()


@pytest.mark.parametrize(("fact", "field"), [("tflops_per_second", "model_flops"), ("mfu", "mfu")])
def test_missing_or_zero_operation_counts_are_not_shown(tmp_path, fact, field):
    for value, name in ((0, "zero"), (None, "none")):
        lines = [train_line(1, **COUNTED), train_line(2, **COUNTED | {field: value})]
        assert standing_of(made_run(tmp_path / name, *lines)).value(fact) is None


@pytest.mark.parametrize(
    ("loss", "smoothing", "smooths"),
    [
        ("cross_entropy", "0.1", True),
        ("cross_entropy", "1.0e-05", True),
        ("cross_entropy", "0.0", False),
        ("of_an_extension", "0.1", False),  # this loss ignores label_smoothing
    ],
)
def test_the_recipe_decides_whether_the_training_loss_is_smoothed(run, loss, smoothing, smooths):
    recipe = f"trainer:\n  max_steps: 20\n  loss: {loss}\n  label_smoothing: {smoothing}\n"
    (run / "recipe.yaml").write_text(recipe)
    standing = standing_of(run)
    assert standing.smooths_labels == smooths
    assert (standing.value("loss"), standing.value("nll")) == (1 / 2, 0.9 / 2)
    trainer = {"max_steps": 20, "loss": loss, "label_smoothing": float(smoothing)}
    (with_checkpoint(run, 2, recipe={"trainer": trainer}) / "recipe.yaml").unlink()
    assert standing_of(run).smooths_labels == smooths


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"process": dead_process()}, "has ended without releasing the run"),
        (
            {"host": "away", "place": "elsewhere", "silent_seconds": 100},
            "no heartbeat for 1 min 40 s",
        ),
        ({"silent_seconds": 100}, "no heartbeat for 1 min 40 s"),  # alive, but paused
        ({"silent_seconds": -100}, "1 min 40 s ahead of this machine's clock"),
    ],
    ids=["dead", "silent elsewhere", "silent here", "from the future"],
)
def test_a_run_whose_owner_is_dead_or_silent_is_abandoned(run, changes, why):
    standing = standing_of(with_owner(run, **changes))
    assert standing.state == "abandoned"
    assert why in standing.reason
    assert standing.seconds_left is None


def test_a_preempted_run_is_stopped_after_its_owner_leaves(tmp_path):
    run = made_run(tmp_path / "run", *TWO_STEPS, Preempted(step=2))
    assert standing_of(with_owner(run, released=True)).state == "stopped"
    assert standing_of(made_run(tmp_path / "copied", *TWO_STEPS)).state == "stopped"


def test_a_run_that_ended_with_an_error_is_failed_until_the_next_start(run):
    with_owner(run, released=True)
    say(run, f"{ENDED}The loss is not finite\nsecond line")
    say(run, "Traceback of the same error")
    standing = standing_of(run)
    assert (standing.state, standing.reason) == ("failed", "The loss is not finite\nsecond line")
    assert [entry.text for entry in standing.notices][-1] == "Traceback of the same error"
    with_owner(run, released=True, since=datetime.now(UTC).isoformat())
    say(run, "SIGTERM was received: the ranks leave before they have begun", 1)
    assert standing_of(run).state == "stopped"


def test_a_run_is_finished_only_with_a_checkpoint_of_its_last_step(tmp_path):
    run = with_owner(made_run(tmp_path / "run", *TWO_STEPS, max_steps=2), released=True)
    assert standing_of(run).state != "finished"  # the last steps are not in a checkpoint yet
    with_checkpoint(run, 1)
    assert standing_of(run).state != "finished"
    with_checkpoint(run, 2)
    assert standing_of(run).state == "finished"
    (run / "recipe.yaml").write_text("trainer:\n  max_steps: 3\n")  # more steps are requested
    assert standing_of(run).state != "finished"


def test_a_run_is_not_finished_while_its_last_validation_is_due(tmp_path):
    run = with_checkpoint(made_run(tmp_path / "run", max_steps=2), 2, validation_due=True)
    assert standing_of(run).state == "stopped"


@pytest.mark.parametrize(
    ("silent_seconds", "state"),
    [(LEASE_SECONDS - 5, "training"), (LEASE_SECONDS + 5, "abandoned")],
)
def test_an_owner_may_be_silent_for_the_length_of_its_lease(run, silent_seconds, state):
    standing = standing_of(with_owner(run, silent_seconds=silent_seconds))
    assert standing.state == state
    assert standing.owner.silent_seconds == pytest.approx(silent_seconds, abs=4)
    assert (standing.step_age_seconds is None) == (state != "training")


def test_a_checkpoint_newer_than_the_record_determines_the_step(tmp_path):
    run = with_checkpoint(made_run(tmp_path / "run", train_line(3)), 8)
    standing = standing_of(run)
    assert (standing.step, standing.checkpoint_step, standing.state) == (8, 8, "stopped")
    assert standing.checkpoint == str(run / "checkpoints" / "step-00000008")
    assert standing_of(made_run(tmp_path / "other", train_line(9))).checkpoint is None


def test_a_run_past_its_last_step_has_no_seconds_left(run):
    (run / "recipe.yaml").write_text("trainer:\n  max_steps: 1\n")  # lowered during training
    assert standing_of(with_owner(run)).seconds_left == 0
    (run / "owners" / "00000007.json").unlink()
    standing = standing_of(with_checkpoint(with_owner(run, released=True), 2))
    assert (standing.state, standing.reason) == ("finished", "trained to step 2")


def test_step_age_is_measured_from_the_last_line_or_from_a_later_start(tmp_path):
    ago = [(datetime.now(UTC) - timedelta(seconds=seconds)).isoformat() for seconds in (10, 500)]
    line = train_line(1, time=time.time() - 100)
    run = made_run(tmp_path / "run", line)
    for since, age in zip(ago, (10, 100), strict=True):
        standing = standing_of(with_owner(run, since=since))
        assert standing.step_age_seconds == pytest.approx(age, abs=5)
    begun = with_owner(made_run(tmp_path / "begun"), since=ago[1])
    assert standing_of(begun).step_age_seconds == pytest.approx(500, abs=5)


def test_imported_weights_are_a_finished_run(tmp_path):
    run = with_checkpoint(made_run(tmp_path / "run"), 0, imported_from="theirs/llama")
    standing = standing_of(run)
    assert standing.state == "finished"
    assert "imported from theirs/llama" in standing.reason


def test_the_five_newest_notices_are_shown(run):
    for number in range(8):
        say(run, f"notice {number}", number)
    found = [entry.text for entry in standing_of(run).notices]
    assert found == [f"notice {number}" for number in range(3, 8)]


def test_the_first_of_equal_finite_scores_is_the_best_score(tmp_path):
    lines = [
        validation_line(1, loss=float("inf"), bleu=20.0),
        validation_line(2, loss=2.0, bleu=20.0),
        validation_line(3, loss=2.0, bleu=10.0),
    ]
    standing = standing_of(made_run(tmp_path / "run", train_line(1), *lines))
    best = {name: (score.value, score.step) for name, score in standing.best.items()}
    assert (best["loss"], best["bleu"]) == ((2.0, 2), (20.0, 1))
    decoding = {name: score.decoding for name, score in standing.best.items()}
    assert (decoding["loss"], decoding["bleu"]) == (None, "greedy")
    never = made_run(tmp_path / "never", train_line(1), lines[0])
    assert standing_of(never).best.keys() == {"bleu"}


@pytest.mark.parametrize(("without_best", "state"), [(2, "stopped"), (4, "finished")])
def test_early_stopping_finishes_a_run_once_patience_is_exhausted(tmp_path, without_best, state):
    fields = {
        "recipe": {"trainer": {"early_stopping": {"metric": "loss", "patience": 3}}},
        "early_stopping": {"metric": "loss", "best": 1.0, "validations_since_best": without_best},
    }
    run = with_checkpoint(made_run(tmp_path / "run"), 8, **fields)
    assert standing_of(run).state == state


def test_the_reason_of_a_run_finished_by_early_stopping_names_step_and_patience(tmp_path):
    fields = {
        "recipe": {"trainer": {"early_stopping": {"metric": "loss", "patience": 3}}},
        "early_stopping": {"metric": "loss", "best": 1.0, "validations_since_best": 3},
    }
    run = with_checkpoint(made_run(tmp_path / "run"), 8, **fields)
    standing = standing_of(run)
    assert (standing.state, standing.step) == ("finished", 8)
    assert standing.reason == "stopped early at step 8: no better score in 3 validations"


def test_newest_and_best_scores_are_shown_with_their_steps(tmp_path):
    lines = [
        *(train_line(1), validation_line(1, loss=3.0, bleu=10.0)),
        *(train_line(2), validation_line(2, loss=1.0, bleu=20.0)),
        *(train_line(3), validation_line(3, loss=2.0, bleu=30.0), skipped_line(4)),
    ]
    standing = standing_of(made_run(tmp_path / "run", *lines))
    assert (standing.step, standing.scores_step) == (4, 3)
    assert standing.scores["loss"].value == 2.0
    best = {name: (score.value, score.step) for name, score in standing.best.items()}
    assert best["loss"] == (1.0, 2)
    assert best["bleu"] == (30.0, 3)


def test_steps_before_a_restart_do_not_count_for_the_speed(tmp_path):
    slow = [train_line(n, restarts=0, time=1000.0 * n) for n in (1, 2)]
    quick = [train_line(n, restarts=1, time=9000.0 + n / 2) for n in (3, 4, 5)]
    standing = standing_of(with_owner(made_run(tmp_path / "run", *slow, *quick, max_steps=25)))
    assert standing.numbers["target_tokens_per_second"] == 20
    assert standing.seconds_left == 10


def test_a_long_record_is_read_from_its_end(tmp_path, monkeypatch):
    lines = [train_line(n) for n in range(1, 3000)]
    lines[100:100] = [validation_line(100)]
    run = made_run(tmp_path / "run", *lines)
    size = (run / "metrics.jsonl").stat().st_size
    read = 0
    opened = record_end.open_regular

    class Counting:
        """A file that counts the bytes read from it."""

        def __init__(self, path):
            self.file = opened(path)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def seek(self, *place):
            return self.file.seek(*place)

        def read(self, most):
            nonlocal read
            data = self.file.read(most)
            read += len(data)
            return data

    monkeypatch.setattr(record_end, "open_regular", Counting)
    with_checkpoint(run, 50, scores=validation_line(50).scores)
    read = 0
    standing = recorded_status(RunFolder(run), RunStatus(), None, 10_000)
    assert read == 10_000 < size / 100
    assert standing.step == 2999
    assert 2970 < standing.best_since_step < 2999
    assert standing.scores_step == 50  # of the checkpoint; the record's line was not read
    assert standing_of(run).scores_step == 100


HOSTILE = {
    "empty": b"",
    "torn": b'{"version": 2, "st',
    "no JSON": b"\xff\xfe\n\x00{}\n",
    "another version": b'{"version": 99, "kind": "train"}\n',
    "two kinds": b'{"version": 2, "step": 1, "kind": "event", "kind": "train"}\n',
    "deep": b'{"kind": "train", "x": ' + b"[" * 50_000 + b"\n",
    "endless numbers": json.dumps(
        train_line(1).model_dump() | {"step": 10**30, "time": 1e308, "target_tokens": 10**400}
    ).encode()
    + b"\n",
    "times apart": b"".join(
        train_line(n, time=(-1) ** n * 1.7e308, target_tokens=10**15).to_json().encode() + b"\n"
        for n in (1, 2)
    ),
    "no time apart": b"".join(
        train_line(n, time=n * 5e-324, target_tokens=10**14).to_json().encode() + b"\n"
        for n in (1, 2)
    ),
}
FILES = ("run.json", "recipe.yaml", "metrics.jsonl", "log.txt")


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_damaged_files_of_a_run_become_problems(run, content):
    with_checkpoint(with_owner(run, released=True), 2)
    for name in FILES:
        kept = (run / name).read_bytes() if (run / name).exists() else b""
        (run / name).write_bytes(content)
        standing = standing_of(run)
        assert RunStatus.model_validate_json(standing.model_dump_json()) == standing
        assert (standing.state == "damaged") == (name == "run.json")
        (run / name).write_bytes(kept)
    (run / "checkpoints" / "step-00000002" / "checkpoint.json").write_bytes(content)
    (run / "owners" / "00000007.released").write_bytes(content)
    standing = standing_of(run)
    assert standing.checkpoint_step == 2
    assert "checkpoint.json" in "".join(standing.problems)


def test_fifos_in_place_of_files_are_reported_without_waiting(run):
    for name in FILES:
        (run / name).unlink(missing_ok=True)
        os.mkfifo(run / name)
    standing = standing_of(run)
    assert standing.state == "damaged"
    assert sum("it is a FIFO" in problem for problem in standing.problems) == len(FILES)
    (run / "owners").rmdir()
    (run / "owners").write_text("")
    assert "owners cannot be read" in "".join(run_status_of(run).problems)


def test_a_folder_with_an_owner_is_a_run_and_one_without_is_not(tmp_path):
    begun = tmp_path / "begun"
    (begun / "owners").mkdir(parents=True)
    assert standing_of(with_owner(begun)).state == "training"
    assert standing_of(with_owner(begun, process=dead_process())).state == "abandoned"
    (begun / "owners" / "00000007.json").unlink()
    assert standing_of(with_owner(begun, released=True)).state == "damaged"
    other = tmp_path / "other"
    other.mkdir()
    (other / "output.txt").write_text("")
    assert [is_run(path) for path in (begun, other, tmp_path / "none")] == [True, False, False]


def test_text_that_resembles_an_entry_does_not_split_a_log_entry(tmp_path):
    log = tmp_path / "log.txt"
    text = f"rank 0: {ENDED}no\n2026-01-01T00:00:00.000+00:00 {ENDED}no"
    log.write_text(log_entry("a" * 70_000, datetime.now(UTC)) + log_entry(text, datetime.now(UTC)))
    assert [entry.text for entry in last_entries(log)] == [text]


def test_entries_marked_as_details_are_not_among_the_notices(run):
    say(run, f"{DETAIL}rank 0: attention is computed by matmul\nin every layer")
    say(run, "checkpoint of step 2 is complete")
    assert [entry.text for entry in standing_of(run).notices] == [
        "checkpoint of step 2 is complete"
    ]
