"""The state in a node's memory: two slots, of which the confirmed one is not overwritten."""

import errno
import os
from contextlib import closing

import pytest
import torch
from safetensors.torch import load_file
from support.records.checkpoints import make_header

from run_store.checkpoints.fragment import Fragment
from run_store.checkpoints.memory_file import SLOTS, MemorySteps
from run_store.checkpoints.state_file import LocalStateFile
from run_store.errors import CheckpointError, DamagedCheckpointError
from trainer.process.placement import Placement
from trainer.state import memory_writer
from trainer.state.checkpoint_writer import share_bytes
from trainer.state.memory_writer import MemoryWriter, memory_tier_problem


class Supervisor:
    """Supervisor that records reports, and confirms the steps that a test sets."""

    def __init__(self) -> None:
        self.steps = MemorySteps()
        self.written, self.failed, self.notices = [], [], []

    def notice(self, text):
        self.notices.append(text)

    def memory_written(self, file, header):
        self.written.append((header.step, file))

    def memory_failed(self, step):
        self.failed.append(step)

    def memory_steps(self):
        return self.steps


@pytest.fixture
def state():
    return [
        Fragment("master", "a", 0, torch.arange(5.0)),
        Fragment("exp_avg", "b", 3, torch.arange(7.0) + 10),
    ]


@pytest.fixture
def supervisor():
    return Supervisor()


@pytest.fixture
def writer(state, supervisor, tmp_path):
    with closing(make_writer(state, supervisor, tmp_path)) as made:
        yield made


def make_writer(state, supervisor, folder, **options):
    made = MemoryWriter(
        lambda: iter(state),
        folder=folder,
        placement=Placement(),
        supervision=supervisor,
        **options,
    )
    made._work.result()
    return made


def save(writer, step):
    stall = writer.save(make_header(step))
    writer._work.result()
    return stall


def first_element(file):
    return load_file(file.path)["master:a:0"][0].item()


def test_a_saved_memory_file_is_a_state_file_with_a_checksum(writer, supervisor):
    assert save(writer, 5) > 0
    ((step, file),) = supervisor.written
    assert step == 5
    file.verify()
    fragments = LocalStateFile(file.path).fragments()
    assert [fragment.key for fragment in fragments] == ["master:a:0", "exp_avg:b:3"]
    assert load_file(file.path)["exp_avg:b:3"].tolist() == [10, 11, 12, 13, 14, 15, 16]
    assert file.path.stat().st_mode & 0o777 == 0o600


def test_the_confirmed_step_is_kept_while_later_steps_are_written(writer, supervisor, state):
    for step in range(1, 6):
        save(writer, step)
        state[0].tensor.add_(100)
        newest = supervisor.written[-1][1]
        supervisor.steps = MemorySteps(held=3 if step >= 3 else step, settled=step)
        if step >= 3:
            confirmed = dict(supervisor.written)[3]
            confirmed.verify()
            assert first_element(confirmed) == 200
        assert first_element(newest) == 100 * (step - 1)
    assert [step for step, _ in supervisor.written] == [1, 2, 3, 4, 5]


def test_a_save_is_skipped_while_the_previous_step_is_not_settled(writer, supervisor, state):
    save(writer, 5)
    state[0].tensor.add_(100)
    assert save(writer, 10) == save(writer, 15) == 0
    assert supervisor.failed == [10, 15]
    (notice,) = supervisor.notices
    assert "step 10" in notice
    assert "step 5" in notice
    assert "checkpoints.memory_every_steps" in notice
    supervisor.steps = MemorySteps(held=0, settled=15)
    save(writer, 20)
    assert [step for step, _ in supervisor.written] == [5, 20]


def test_the_second_slot_is_allocated_once_the_first_step_is_confirmed(state, supervisor, tmp_path):
    with closing(make_writer(state, supervisor, tmp_path, slots_at_start=1)) as writer:
        assert len(list(tmp_path.iterdir())) == 1
        save(writer, 1)
        supervisor.steps = MemorySteps(1, 1)
        save(writer, 2)
        assert supervisor.failed == [2]
        assert len(list(tmp_path.iterdir())) == 2
        save(writer, 3)
    assert [step for step, _ in supervisor.written] == [1, 3]


def test_the_writer_switches_off_if_the_memory_is_full(state, supervisor, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with closing(make_writer(state, supervisor, tmp_path)) as writer:
        save(writer, 5)
    (notice,) = supervisor.notices
    assert "memory checkpoints are off" in notice
    assert "No space left" in notice
    assert supervisor.failed == [5]
    assert supervisor.written == []


def test_a_record_that_cannot_be_synced_fails_only_its_step(state, supervisor, tmp_path):
    results = iter([CheckpointError("the disk is full"), None])

    def sync():
        if error := next(results):
            raise error

    with closing(make_writer(state, supervisor, tmp_path, sync_record=sync)) as writer:
        save(writer, 5)
        supervisor.steps = MemorySteps(0, 5)
        save(writer, 10)
    assert supervisor.failed == [5]
    assert [step for step, _ in supervisor.written] == [10]
    assert "the disk is full" in supervisor.notices[0]


def test_a_damaged_memory_file_is_detected(writer, supervisor):
    save(writer, 5)
    ((_, file),) = supervisor.written
    with file.path.open("r+b") as opened:
        opened.seek(-1, os.SEEK_END)
        opened.write(b"\1")
    with pytest.raises(DamagedCheckpointError):
        file.verify()
    file.path.unlink()
    with pytest.raises(DamagedCheckpointError, match="cannot be read: No such file"):
        file.verify()


@pytest.mark.parametrize(
    ("space", "memory", "problem"),
    [(10**9, 10**9, ""), (10, 10**9, "/dev/shm"), (10**9, 10, "of memory on the node of rank 0")],
)
def test_memory_that_is_too_small_is_reported(state, tmp_path, monkeypatch, space, memory, problem):
    monkeypatch.setattr(memory_writer, "free_bytes", lambda folder: space)
    monkeypatch.setattr(memory_writer, "available_bytes", lambda: memory)
    placement = Placement(memory_folder=tmp_path / "attempt", memory_neighbor_ranks=1)
    found = memory_tier_problem(iter(state), placement)
    assert problem in found
    assert bool(problem) == bool(found)
    if found:
        assert "checkpoints.memory_every_steps" in found


@pytest.mark.parametrize(
    ("own", "neighbors"), [(1, 0), (2, 0), (1, 1), (1, 3)], ids=lambda number: str(number)
)
def test_the_slots_of_all_ranks_of_a_node_and_of_its_neighbour_must_fit(
    state, tmp_path, monkeypatch, own, neighbors
):
    """Space for the slots is enough, and one byte less is not."""
    needed = SLOTS * share_bytes(iter(state)) * (own + neighbors)
    placement = Placement(
        local_world_size=own,
        memory_folder=tmp_path / "attempt",
        memory_neighbor_ranks=neighbors,
    )
    monkeypatch.setattr(memory_writer, "available_bytes", lambda: needed)
    for space in (needed, needed - 1):
        monkeypatch.setattr(memory_writer, "free_bytes", lambda folder, space=space: space)
        assert bool(memory_tier_problem(iter(state), placement)) == (space < needed)


def test_memory_that_the_run_already_uses_counts_as_available(state, tmp_path, monkeypatch):
    needed = SLOTS * share_bytes(iter(state))
    monkeypatch.setattr(memory_writer, "free_bytes", lambda folder: needed)
    monkeypatch.setattr(memory_writer, "available_bytes", lambda: needed - 4096)
    placement = Placement(memory_folder=tmp_path / "run" / "attempt")
    placement.memory_folder.mkdir(parents=True)
    assert memory_tier_problem(iter(state), placement)
    (placement.memory_folder / "former").write_bytes(b"1" * 4096)
    assert memory_tier_problem(iter(state), placement) == ""
