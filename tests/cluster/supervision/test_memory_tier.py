"""Steps that are held in memory, and the step from which a run restarts after a loss."""

from pathlib import Path

import pytest
from support.records.checkpoints import make_header

from cluster.ranks.node_memory import StoredFile
from cluster.supervision.memory_tier import MAX_FAILED_STARTS, MemoryTier
from run_store.checkpoints.memory_file import MemoryFile, MemorySteps
from run_store.errors import CheckpointError


class Copy:
    """Copy that ends when a test calls `finish`."""

    def __init__(self, file: MemoryFile, node: str) -> None:
        self.copied = StoredFile(file, node, None)
        self.end: StoredFile | CheckpointError | None = None

    def finish(self) -> None:
        self.end = self.copied

    def poll(self):
        if isinstance(self.end, CheckpointError):
            raise self.end
        return self.end


class Supply:
    def __init__(self) -> None:
        self.copies: list[Copy] = []
        self.kept: list[list[str]] = []
        self.problems: list[str] = []

    def open_memory(self, name):
        return self.problems

    def keep_attempts(self, attempts):
        self.kept.append(attempts)

    def stored_file(self, file, node):
        return StoredFile(file, node, None)

    def copy_memory(self, file, source, target):
        self.copies.append(Copy(file, target))
        return self.copies[-1]


class Tier:
    """Memory tier in an attempt with one rank on each of these nodes."""

    def __init__(self, *nodes: str) -> None:
        self.supply, self.notices = Supply(), []
        self.tier = MemoryTier(self.supply, self.notices.append)
        self.nodes = nodes
        assert self.tier.begin_attempt("first", nodes, None)

    def write(self, step: int, *ranks: int) -> None:
        for rank in ranks or range(len(self.nodes)):
            file = MemoryFile(Path(f"/{step}/{rank}"), 1, 0)
            self.tier.written(rank, file, make_header(step))

    def hold(self, step: int) -> None:
        self.write(step)
        for copy in self.supply.copies:
            copy.finish()
        assert self.tier.poll() == MemorySteps(step, step)

    def newest(self, *lost: str, after: int = 0):
        found = self.tier.newest(after, lambda nodes: nodes - set(lost))
        return found and (found.step, [file.node for file in found.files])


def test_a_step_is_held_when_all_ranks_have_written_and_all_copies_are_complete():
    run = Tier("a", "b", "c")
    run.write(5, 0, 1)
    assert run.tier.poll() is None
    run.write(5, 2)
    assert [copy.copied.node for copy in run.supply.copies] == ["b", "c", "a"]
    for copy in run.supply.copies[:2]:
        copy.finish()
    assert run.tier.poll() is None
    run.supply.copies[2].finish()
    assert run.tier.poll() == MemorySteps(held=5, settled=5)
    assert run.tier.poll() is None


@pytest.fixture
def run():
    """Return a tier of two ranks on two nodes."""
    return Tier("a", "b")


def test_ranks_of_a_single_node_make_no_copies():
    run = Tier("a", "a")
    run.write(5)
    assert run.supply.copies == []
    assert run.tier.poll() == MemorySteps(5, 5)
    assert run.newest() == (5, ["a", "a"])


def test_a_step_survives_the_loss_of_any_single_node():
    run = Tier("a", "b", "c")
    run.hold(5)
    assert run.newest() == (5, ["a", "b", "c"])
    assert run.newest("a") == (5, ["b", "b", "c"])
    assert run.newest("c") == (5, ["a", "b", "a"])


def test_a_step_is_lost_together_with_two_neighbouring_nodes():
    run = Tier("a", "b", "c", "d")
    run.hold(5)
    assert run.newest("a", "b") is None
    assert run.newest("a", "c") == (5, ["b", "b", "d", "d"])


def test_a_newer_step_without_copies_is_used_while_all_its_nodes_live(run):
    run.hold(5)
    run.write(10)
    assert run.newest() == (10, ["a", "b"])
    assert run.newest("a") == (5, ["b", "b"])


def test_a_step_that_a_rank_has_not_written_is_not_used(run):
    run.hold(5)
    run.write(10, 0)
    assert run.newest() == (5, ["a", "b"])


def test_a_step_in_memory_is_used_only_if_newer_than_the_step_on_disk():
    run = Tier("a")
    run.hold(5)
    assert run.newest(after=4) == (5, ["a"])
    assert run.newest(after=5) is None


def test_a_skipped_step_is_settled_and_its_late_files_are_ignored(run):
    run.tier.failed(5)
    run.write(5, 0)
    assert run.tier.poll() == MemorySteps(held=0, settled=5)
    run.write(5, 1)
    assert run.tier.poll() is None
    assert run.supply.copies == []
    assert run.newest() is None


def test_a_failed_step_does_not_settle_an_earlier_pending_step(run):
    run.write(5)
    run.tier.failed(10)
    assert run.tier.poll() is None
    for copy in run.supply.copies:
        copy.finish()
    assert run.tier.poll() == MemorySteps(held=5, settled=10)


def test_a_copy_that_fails_is_reported_once(run):
    for step in (5, 10):
        run.write(step)
        for copy in run.supply.copies[-2:]:
            copy.end = CheckpointError("No space left on device")
        assert run.tier.poll() == MemorySteps(held=0, settled=step)
    assert run.notices == ["No space left on device"]
    assert run.newest() is None


def test_the_restored_step_is_kept_until_a_newer_step_is_held(run):
    run.hold(5)
    assert run.newest("a", "b") is None
    restored = run.tier.newest(0, lambda nodes: nodes)
    run.tier.begin_attempt("second", ["b"], restored)
    assert set(run.supply.kept[-1]) == {"first", "second"}
    assert run.newest() == (5, ["a", "b"])
    run.nodes = ("b",)
    run.write(10)
    assert run.tier.poll() == MemorySteps(10, 10)
    assert run.supply.kept[-1] == ["second"]
    assert run.newest("a") == (10, ["b"])


def test_a_step_is_dropped_after_several_starts_without_a_trained_step():
    run = Tier("a")
    run.hold(5)
    for _ in range(MAX_FAILED_STARTS):
        restored = run.tier.newest(0, lambda nodes: nodes)
        run.tier.begin_attempt("next", ["a"], restored)
    assert run.newest() is None
    assert "the checkpoint on disk is used" in run.notices[-1]


def test_starts_that_train_a_step_do_not_count_against_the_restored_step():
    run = Tier("a")
    run.hold(5)
    for _ in range(2 * MAX_FAILED_STARTS):
        restored = run.tier.newest(0, lambda nodes: nodes)
        run.tier.begin_attempt("next", ["a"], restored)
        run.tier.step_trained()
    assert run.newest() == (5, ["a"])


def test_a_damaged_step_is_dropped():
    run = Tier("a")
    run.hold(5)
    run.tier.drop()
    assert run.newest() is None


def test_a_node_without_a_memory_folder_is_named_and_turns_the_tier_off():
    run = Tier("a")
    run.supply.problems = ["node a: no /dev/shm"]
    assert run.tier.begin_attempt("second", ["a"], None) is None
    assert "memory checkpoints are off: node a: no /dev/shm" in run.notices


@pytest.mark.parametrize("ranks", [1, 2, 5])
def test_steps_that_are_never_held_are_forgotten(ranks):
    run = Tier(*"abcde"[:ranks])
    for step in range(1, 100):
        run.tier.failed(step)
        run.tier.poll()
    assert not run.tier._steps
