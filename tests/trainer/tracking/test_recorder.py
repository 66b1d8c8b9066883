"""Restarts, lost steps and goodput in a run's record."""

from pathlib import Path

import pytest
from support.files.counted_reads import count_reads
from support.recipes import tiny_recipe
from support.records.lines import train_line

from run_store.errors import RunError
from run_store.folder import RunFolder, RunMetadata
from run_store.record.line_reader import BLOCK_BYTES
from run_store.record.metrics_file import read_metrics
from run_store.record.metrics_lines import Event, Line, Preempted, TrainLine
from trainer.tracking import recorder as recorder_module
from trainer.tracking.recorder import Recorder


class Heard:
    """Supervisor that collects lines and notices."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.notices: list[str] = []

    def line(self, line: Line) -> None:
        self.lines.append(line)

    def notice(self, text: str) -> None:
        self.notices.append(text)


@pytest.fixture
def run(tmp_path, monkeypatch) -> RunFolder:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    card = RunMetadata(id="abcd1234", name="r", dataset_identity="", identity={})
    folder.card_path.write_text(card.model_dump_json())
    return folder


def record(run: RunFolder, checkpoint_step: int, session_started: float, steps: range) -> Heard:
    """Record one start with some steps of 2 s, 3 s apart; return the supervisor."""
    heard = Heard()
    recipe = tiny_recipe(Path("/dataset")).training()
    recorder = Recorder(
        run,
        recipe,
        resume_step=checkpoint_step,
        session_started=session_started,
        supervision=heard,
        wandb_facts=dict,
    )
    if checkpoint_step:
        recorder.append(Preempted(step=recorder.last_step))
    for step in steps:
        recorder.append(train_line(step, time=1000.0 + 3 * step, step_seconds=2.0))
    recorder.close()
    return heard


def test_each_train_line_has_the_totals_of_the_run(run):
    record(run, 0, 1000.0, range(1, 8))
    record(run, 5, 1000.0, range(6, 10))
    lines = read_metrics(run.metrics)
    steps = {line.step: line for line in lines if isinstance(line, TrainLine)}
    assert list(steps) == list(range(1, 10))
    assert steps[1].goodput == round(2 / 3, 4)
    assert steps[7].wall_seconds == 21.0
    assert [steps[7].restarts, steps[7].lost_steps] == [0, 0]
    assert [steps[8].restarts, steps[8].lost_steps] == [1, 2]
    assert steps[9].wall_seconds == 27.0
    assert steps[9].counted_seconds == 18.0
    assert [line for line in lines if isinstance(line, Event)] == [Preempted(step=7)]


def test_repeated_steps_are_displayed_but_neither_recorded_nor_counted(run):
    record(run, 0, 1000.0, range(1, 8))
    before = run.metrics.read_text()
    heard = record(run, 5, 1000.0, range(6, 8))
    assert [line.step for line in heard.lines] == [7, 6, 7]
    assert heard.lines[-1].goodput is None
    assert run.metrics.read_text().startswith(before)
    assert [line.kind for line in read_metrics(run.metrics)[7:]] == ["event"]


def test_only_the_end_of_a_long_record_is_read(run, monkeypatch):
    line = train_line(7, restarts=3).to_json().replace('"step": 7', '"step": %d') + "\n"
    run.metrics.write_text("".join(line % step for step in range(1, 300_001)))
    read = count_reads(monkeypatch)
    heard = record(run, 300_000, 2.0, range(300_001, 300_002))
    # At most a block is read for each of: a torn line, the lines after the checkpoint, the totals.
    assert 0 < read[run.metrics] <= 3 * BLOCK_BYTES
    assert heard.lines[1].restarts == 4


def test_a_new_run_is_refused_if_wandb_does_not_start(run, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "no-such-mode")
    with pytest.raises(RunError, match="no-such-mode"):
        record(run, 0, 1000.0, range(1, 2))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    record(run, 0, 1000.0, range(1, 2))  # succeeds, because the record was unlocked


@pytest.mark.parametrize("jump", [86_400.0, -86_400.0])
def test_a_clock_that_is_set_during_a_run_does_not_change_the_times(run, monkeypatch, jump):
    """Each step takes 2 s and begins 3 s after the previous one; the clock is set before step 2."""
    now, steady = 1000.0, 50.0
    monkeypatch.setattr(recorder_module.time, "time", lambda: now)
    monkeypatch.setattr(recorder_module.time, "monotonic", lambda: steady)
    recipe = tiny_recipe(Path("/dataset")).training()
    recorder = Recorder(
        run, recipe, resume_step=0, session_started=now, supervision=Heard(), wandb_facts=dict
    )
    for step in range(1, 5):
        now, steady = now + 5.0 + (jump if step == 2 else 0.0), steady + 5.0
        recorder.append(train_line(step, time=now, step_seconds=2.0))
    recorder.close()
    *_, last = read_metrics(run.metrics)
    assert (last.wall_seconds, last.counted_seconds, last.goodput) == (20.0, 8.0, 0.4)
