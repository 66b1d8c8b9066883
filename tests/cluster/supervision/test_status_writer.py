"""The state that the supervisor writes to status.json, from the events that it receives."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from support.cluster.scripted_cluster import HandClock
from support.files.disk_calls import by_name, record_disk_calls
from support.records.lines import train_line, validation_line
from support.records.run_folders import made_run

from cluster.data.workers import HEARTBEAT_TIMEOUT_SECONDS, WorkerHeartbeat, WorkerStatistics
from cluster.health.hang_detector import Position
from cluster.supervision import status_writer
from cluster.supervision.status_writer import STARTED_AGAIN, StatusWriter
from run_store import lease as lease_module
from run_store.folder import RunFolder
from run_store.lease import Lease
from run_store.record.run_status import read_status, run_status_of
from run_store.record.vitals import MAX_CHARACTERS, MAX_RESTARTS
from run_store.start import Claim, Invocation, Start


class Audience:
    def __init__(self):
        self.told = []

    def vitals(self, vitals):
        self.told.append(vitals)


@pytest.fixture
def run(tmp_path):
    return RunFolder(made_run(tmp_path / "run", train_line(1)))


@contextmanager
def keeping(run, listener):
    with Lease(run.path) as lease, StatusWriter(run, lease, listener) as keeper:
        yield keeper


def kept(run, *events):
    """Return the vitals in the folder after these events."""
    with keeping(run, Audience()) as keeper:
        for event in events:
            event(keeper)
    return read_status(run).vitals


def begin(keeper):
    keeper.attempt_begins(["a", "b"])


def test_ranks_have_the_position_of_their_last_report(run):
    def move(keeper):
        keeper.update_ranks([(Position("step", 5), 0.0), (Position("validation", 4), 7.0)])

    first, second = kept(run, begin, move).ranks
    assert (first.node, first.phase, first.step) == ("a", "step", 5)
    assert (second.node, second.phase, second.step) == ("b", "validation", 4)
    assert 7.0 <= second.silent_seconds < 7.0 + 60


def test_the_supervisor_s_state_is_written_except_while_ranks_train(run):
    with keeping(run, Audience()) as keeper:
        states = []
        for event in (
            lambda: keeper.state_begins("waiting_for_capacity"),
            lambda: begin(keeper),
            lambda: keeper.state_begins("training"),
            lambda: keeper.state_begins("ending"),
        ):
            event()
            keeper._write(over=False)
            states.append(read_status(run).vitals.supervisor)
    assert states == ["waiting_for_capacity", "waiting_for_capacity", None, "ending"]
    assert read_status(run).vitals.supervisor is None  # the owner has left


def test_the_listener_gets_the_vitals_that_are_written(run):
    listener = Audience()
    with keeping(run, listener) as keeper:
        begin(keeper)
    assert listener.told[-1] == read_status(run).vitals


def test_unfit_nodes_are_listed_with_their_figures(run):
    with keeping(run, Audience()) as keeper:
        keeper.unfit.add("b", "Node b is slow", "3 GFLOP/s; the other: 90 GFLOP/s")
        begin(keeper)
        keeper.unfit.add("c", "word " * 500)
    first, second = read_status(run).vitals.unfit_nodes
    assert first == "Node b is slow (3 GFLOP/s; the other: 90 GFLOP/s)"
    assert len(second) == MAX_CHARACTERS


def test_the_last_status_of_an_owner_that_has_left_is_over(run):
    assert kept(run, begin).over
    assert run_status_of(run.path).state == "stopped"


def test_a_start_that_trains_nothing_keeps_the_earlier_vitals(run):
    before = kept(run, begin)
    assert kept(run) == before


def test_restarts_and_their_causes_are_kept_across_commands(run):
    def lose(keeper):
        keeper.attempt_ends("Rank 1 has died, fetching s3://user:secret@host/data\nTraceback")

    kept(run, begin, lose, begin)
    vitals = kept(run, begin)
    causes = [restart.cause for restart in vitals.restarts]
    assert causes[0] == causes[2] == STARTED_AGAIN
    assert causes[1].startswith("Rank 1 has died")
    assert "secret" not in causes[1]
    assert "Traceback" not in causes[1]
    assert abs(vitals.restarts[-1].time - time.time()) < 3600


def test_the_first_start_of_a_run_is_no_restart(tmp_path):
    new = RunFolder(tmp_path / "new")
    new.path.mkdir()
    assert kept(new, begin).restarts == ()


def test_causes_are_cut_and_only_the_newest_restarts_are_kept(run):
    def lose(keeper):
        keeper.attempt_ends("x" * 10_000)

    restarts = kept(run, begin, *[lose, begin] * (MAX_RESTARTS + 1)).restarts
    assert len(restarts) == MAX_RESTARTS
    assert {len(restart.cause) for restart in restarts} == {MAX_CHARACTERS}


@pytest.mark.parametrize(
    ("events", "step"),
    [
        (["begins"], 5),
        (["begins", "ends"], None),
        (["begins", "ends", "begins"], None),  # a slower rank begins an ended checkpoint
        (["begins", "a new attempt"], None),
        (["begins", "ends", "a new attempt", "begins"], 5),
        (["begins", "an earlier one ends"], 5),
        (["begins", "a later one ends"], None),
    ],
)
def test_vitals_show_the_step_of_the_checkpoint_being_written(run, events, step):
    doing = {
        "begins": lambda keeper: keeper.checkpoint_begins(5),
        "ends": lambda keeper: keeper.checkpoint_ends(5),
        "an earlier one ends": lambda keeper: keeper.checkpoint_ends(4),
        "a later one ends": lambda keeper: keeper.checkpoint_ends(6),
        "a new attempt": begin,
    }
    vitals = kept(run, begin, *(doing[event] for event in events))
    assert vitals.checkpoint_being_written == step


def test_a_worker_that_does_not_answer_is_not_alive(run):
    answers = WorkerStatistics(process_id=1, node="0123abcd", windows_read=12)
    signs = [WorkerHeartbeat(0, answers, 0.5), WorkerHeartbeat(1, None, HEARTBEAT_TIMEOUT_SECONDS)]
    vitals = kept(run, begin, lambda keeper: keeper.update_workers(signs, {"0123abcd": "a"}))
    told = [(w.number, w.node, w.alive, w.windows_read) for w in vitals.data_workers]
    assert told == [(0, "a", True, 12), (1, None, False, None)]


def test_the_silence_of_a_process_grows_until_its_next_update(run, monkeypatch):
    """The supervisor waits, for example for the file system, while its thread writes vitals."""
    clock = HandClock()
    hand = SimpleNamespace(time=time.time, monotonic=clock.poll)
    monkeypatch.setattr(status_writer, "time", hand)
    signs = [WorkerHeartbeat(0, WorkerStatistics(1, "0123abcd", 12), 0.5)]

    def poll(keeper):
        keeper.update_ranks([(Position("step", 5), 2.0), (Position("step", 5), 0.0)])
        keeper.update_workers(signs, {})

    def wait(keeper):
        clock.now += 3.0

    vitals = kept(run, begin, wait, poll, wait)
    assert [rank.silent_seconds for rank in vitals.ranks] == [5.0, 3.0]
    assert [worker.silent_seconds for worker in vitals.data_workers] == [3.5]
    (worker,) = kept(run, begin, wait, poll, wait, poll).data_workers
    assert worker.silent_seconds == 0.5


def test_a_damaged_status_file_is_replaced(run):
    run.status.write_text("{")
    assert kept(run, begin).attempt == 1


# Owns a run, writes its status as often as possible, and prints the number of writes.
OWNER = """
import itertools, sys
from pathlib import Path
from types import SimpleNamespace
from cluster.supervision.status_writer import StatusWriter
from run_store import lease as lease_module
from run_store.lease import Lease
from run_store.folder import RunFolder

run = RunFolder(Path(sys.argv[1]))
listener = SimpleNamespace(vitals=lambda vitals: None)
with Lease(run.path) as lease, StatusWriter(run, lease, listener) as writer:
    writer.attempt_begins(["a"])
    for number in itertools.count():
        writer._write(over=False)
        print(number, flush=True)
"""


@pytest.fixture
def owner(run):
    command = (sys.executable, "-c", OWNER, str(run.path))
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_former_owner_that_resumes_does_not_replace_the_status(run, owner, monkeypatch):
    assert owner.stdout.readline() == "0\n"
    owner.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(lease_module, "LEASE_SECONDS", 0.5)
    with keeping(run, Audience()) as keeper:
        keeper.attempt_begins(["b", "c"])
        keeper._write(over=False)
        mine = read_status(run)
        assert (len(mine.vitals.ranks), mine.owner.process) == (2, os.getpid())
        keeper._writing.acquire()  # no writes of this process until the former owner has tried
        owner.send_signal(signal.SIGCONT)
        for _ in range(20):
            assert owner.stdout.readline()
        assert read_status(run) == mine
        keeper._writing.release()
    assert read_status(run).owner.process == os.getpid()


def test_readers_and_the_next_owner_find_a_complete_status(run, owner):
    owner.stdout.readline()
    for _ in range(100):
        assert read_status(run).state == "training"
    owner.kill()
    owner.wait()
    assert read_status(run).vitals.ranks[0].node == "a"  # the owner's last status
    assert run_status_of(run.path).state == "abandoned"
    kept(run, begin)  # the next owner
    assert run_status_of(run.path).state == "stopped"
    assert list(run.checkpoints.iterdir()) == []


def test_the_last_state_is_on_the_disk_before_the_run_is_released(run, monkeypatch):
    found = []
    leave = Lease._leave
    monkeypatch.setattr(
        Lease, "_leave", lambda lease: found.append(read_status(run).state) or leave(lease)
    )
    kept(run, begin)
    assert found == ["stopped"]


def test_the_last_status_is_synced_then_renamed_then_its_folder_is_synced(run, monkeypatch):
    with keeping(run, Audience()) as keeper:
        begin(keeper)
        calls = record_disk_calls(monkeypatch)
    at = by_name(calls).index(("sync", "status.json.unfinished"))
    assert by_name(calls)[at + 1 : at + 3] == [("rename", "status.json"), ("sync", run.path.name)]


def test_a_new_owner_reads_step_and_scores_from_the_end_of_the_record(run):
    with run.metrics.open("a") as record:
        record.writelines(f"{line.to_json()}\n" for line in (train_line(2), validation_line(2)))
    with keeping(run, Audience()):
        status = run_status_of(run.path)
    assert (status.state, status.step, status.scores_step) == ("training", 2, 2)
    assert status.best.keys() >= {"loss", "bleu"}


def test_scores_of_steps_that_a_restart_removed_are_dropped(run):
    whole = run.metrics.read_text()
    with run.metrics.open("a") as record:
        record.writelines(f"{line.to_json()}\n" for line in (train_line(2), validation_line(2)))
    with keeping(run, Audience()) as keeper:
        assert read_status(run).scores_step == 2
        run.metrics.write_text(whole)
        keeper._write(over=False)
        assert (read_status(run).scores_step, read_status(run).best) == (None, {})


def test_a_score_is_kept_when_its_line_is_far_from_the_end(run, monkeypatch):
    monkeypatch.setattr(status_writer, "LAST_BYTES", 1000)
    with run.metrics.open("a") as record, keeping(run, Audience()) as keeper:
        print(validation_line(1, bleu=40.0).to_json(), file=record, flush=True)
        for step in range(2, 30):
            print(train_line(step).to_json(), file=record, flush=True)
            if step % 10 == 0:
                keeper._write(over=False)
        status = read_status(run)
    assert (status.scores_step, status.best["bleu"].value) == (1, 40.0)


def test_rank_hours_and_cost_add_up_over_starts_and_a_stop_has_its_reason(run, monkeypatch):
    clock = HandClock()
    monkeypatch.setattr(status_writer.time, "monotonic", lambda: clock.now)
    recipe = {"cluster": {"price_per_rank_hour": 3.0}}
    start = Start(
        since="", invocation=Invocation(), claim=Claim(owner="ada"), code=None, versions={}
    )
    for _ in range(2):
        with keeping(run, Audience()) as keeper:
            keeper.run_opens(recipe, start)
            begin(keeper)
            clock.now += 1800.0
            keeper.stop_reason = lambda: "ada stopped it"
    status = run_status_of(run.path)
    assert (status.rank_hours, status.cost) == (2.0, 6.0)
    assert (status.state, status.reason) == ("stopped", "ada stopped it")
    assert (status.job_owner, status.priority) == ("ada", 50)
