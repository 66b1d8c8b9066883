"""Memory files of two nodes: copied, read in blocks, verified, removed."""

import os
import stat
import zlib
from contextlib import closing
from types import SimpleNamespace

import pytest
import ray
import torch
from support.cluster.processes import wait_until
from support.records.checkpoints import make_header

from cluster.health.watchdog import HeartbeatSender
from cluster.ranks import node_memory
from cluster.ranks.node_agent import NodeAgent
from cluster.ranks.node_memory import (
    MemoryCheckpoint,
    NodeMemory,
    PendingCopy,
    StoredFile,
    memory_folder_name,
    next_nodes,
)
from cluster.ray.session import ray_session
from run_store.checkpoints import memory_folder
from run_store.checkpoints.fragment import Fragment
from run_store.checkpoints.memory_file import MemoryFile, MemorySteps
from run_store.checkpoints.memory_folder import MemoryFolder
from run_store.checkpoints.reader import CheckpointReader
from run_store.errors import CheckpointError, DamagedCheckpointError
from trainer.process.placement import Placement
from trainer.state.memory_writer import MemoryWriter

STATE = [Fragment("master", "w", 0, torch.arange(4.0)), Fragment("exp_avg", "w", 0, torch.ones(4))]


@pytest.fixture(scope="module")
def agents(ray_head):
    """Return two agents, as if of two nodes, and the id of this node."""
    with ray_session(ray_head.address):
        made = [NodeAgent.remote() for _ in range(2)]
        with HeartbeatSender(lambda: made):
            yield made, ray.get_runtime_context().get_node_id()
        for agent in made:
            ray.get(agent.close_memory.remote())


@pytest.fixture
def run_name(request):
    return f"test-{os.getpid()}-{request.node.originalname}"


class Writer:
    """Rank that writes STATE to its node's memory."""

    def __init__(self, folder) -> None:
        self.file: MemoryFile | None = None
        self.made = MemoryWriter(
            lambda: iter(STATE), folder=folder, placement=Placement(), supervision=self
        )
        self.made._work.result()

    def save(self, step: int) -> MemoryFile:
        self.made.save(make_header(step))
        self.made._work.result()
        return self.file

    def memory_written(self, file, header):
        self.file = file

    def memory_steps(self):
        return MemorySteps()

    def notice(self, text):
        raise AssertionError(text)

    def close(self):
        self.made.close()


@pytest.fixture
def stored(agents, run_name):
    """Return a file that a rank wrote on the first agent's node, and the second agent."""
    (first, second), node = agents
    for agent in (first, second):
        ray.get(agent.close_memory.remote())
        assert ray.get(agent.open_memory.remote(run_name)) is None
    folder = MemoryFolder(memory_folder_name(run_name))
    attempt = folder.path / "attempt"
    attempt.mkdir()
    with closing(Writer(attempt)) as writer:
        file = writer.save(5)
    yield StoredFile(file, node, first), second
    folder.remove()


def as_remote(stored: StoredFile, monkeypatch) -> StoredFile:
    """Return the file as ranks on another node see it."""
    monkeypatch.setattr(StoredFile, "_is_here", False)
    return stored


def copied(stored, target, node="other"):
    pending = PendingCopy(stored.file, stored.agent, target, node)
    wait_until(lambda: pending.poll() is not None)
    return pending.poll()


@pytest.mark.parametrize("block", [7, 64, node_memory.BLOCK_BYTES])
def test_a_state_is_read_from_another_node_in_blocks(stored, monkeypatch, block):
    monkeypatch.setattr(node_memory, "BLOCK_BYTES", block)
    remote = as_remote(stored[0], monkeypatch)
    reader = CheckpointReader(MemoryCheckpoint(make_header(5), (remote,)))
    assert reader.read("master", "w", 1, 3).tolist() == [1.0, 2.0]
    assert reader.whole("exp_avg", "w").tolist() == [1.0] * 4
    assert reader.whole("master", "w").tolist() == [0.0, 1.0, 2.0, 3.0]


def test_ranks_of_the_same_node_read_the_file_directly(stored):
    reader = CheckpointReader(MemoryCheckpoint(make_header(5), (stored[0],)))
    assert reader.whole("master", "w").tolist() == [0.0, 1.0, 2.0, 3.0]


def test_a_copy_on_another_node_equals_the_file_and_is_private(stored):
    original, other = stored
    copy = copied(original, other)
    assert (copy.node, copy.agent) == ("other", other)
    assert copy.file.path.read_bytes() == original.file.path.read_bytes()
    assert stat.S_IMODE(copy.file.path.stat().st_mode) == 0o600
    copy.file.verify()


@pytest.mark.parametrize("is_remote", [False, True])
def test_a_damaged_file_is_detected_on_either_node(stored, monkeypatch, is_remote):
    original, other = stored
    if is_remote:
        as_remote(original, monkeypatch)
    checkpoint = MemoryCheckpoint(make_header(5), (original,))
    checkpoint.verify_share(0, 1)
    with original.file.path.open("r+b") as file:
        file.write(b"\0")
    with pytest.raises(DamagedCheckpointError, match="checksum"):
        checkpoint.verify_share(0, 1)
    pending = PendingCopy(original.file, original.agent, other, "other")
    with pytest.raises(CheckpointError, match="cannot be copied to node other"):
        wait_until(lambda: pending.poll() is not None)


def test_a_missing_file_counts_as_a_damaged_checkpoint(stored, monkeypatch):
    remote = as_remote(stored[0], monkeypatch)
    remote.file.path.unlink()
    with pytest.raises(DamagedCheckpointError, match="cannot be read"):
        CheckpointReader(MemoryCheckpoint(make_header(5), (remote,)))


@pytest.mark.parametrize("path", ["/etc/passwd", "{folder}/attempt/../../../../../etc/passwd"])
def test_only_files_in_the_run_s_folder_are_served(stored, path, tmp_path):
    folder = stored[0].file.path.parent.parent
    asked = type(folder)(path.format(folder=folder))
    with pytest.raises(CheckpointError, match="not in a run's folder"):
        ray.get(stored[0].agent.read_memory.remote(asked, 0, 1))


def test_a_restarted_agent_copies_and_serves_files(stored, agents):
    original, other = stored
    again = NodeAgent.remote()
    with HeartbeatSender(lambda: [again]):
        copied(StoredFile(original.file, original.node, again), other).file.verify()
        copied(original, again).file.verify()
    ray.kill(again)


def test_files_of_former_attempts_are_removed(stored):
    original, _ = stored
    ray.get(original.agent.keep_attempts.remote(["attempt"]))
    assert original.file.path.exists()
    ray.get(original.agent.keep_attempts.remote(["next"]))
    assert not original.file.path.parent.exists()


def test_closing_the_memory_removes_the_run_s_folder(stored):
    original, _ = stored
    ray.get(original.agent.close_memory.remote())
    assert not original.file.path.parent.parent.exists()


def test_a_node_without_a_memory_folder_returns_the_reason(monkeypatch):
    def refuse(name):
        raise CheckpointError("/dev/shm is missing")

    monkeypatch.setattr(node_memory, "memory_folder_name", lambda name: name)
    monkeypatch.setattr(node_memory, "MemoryFolder", refuse)
    assert NodeMemory().open("run") == "/dev/shm is missing"


def test_each_node_copies_the_files_of_the_previous_node():
    assert next_nodes(["a", "a", "b", "c", "b"]) == {"a": "b", "b": "c", "c": "a"}
    assert next_nodes(["a", "a"]) == {}


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_the_ranks_of_a_restart_verify_each_file_once(world_size):
    verified = []

    class Stored:
        def __init__(self, number):
            self.number = number

        def verify(self):
            verified.append(self.number)

    checkpoint = MemoryCheckpoint(make_header(5), tuple(map(Stored, range(3))))
    for rank in range(world_size):
        checkpoint.verify_share(rank, world_size)
    assert sorted(verified) == [0, 1, 2]


class LocalNode:
    """Node without Ray: its memory, and an agent whose calls return their results."""

    current = ""

    def __init__(self, name):
        self.name = name
        self.memory = NodeMemory()
        self.ranges = []
        self.read_memory = SimpleNamespace(remote=self._read)

    def __enter__(self):
        LocalNode.current = self.name
        return self.memory

    def __exit__(self, *_):
        LocalNode.current = ""

    def _read(self, path, start, stop):
        caller, LocalNode.current = LocalNode.current, self.name
        try:
            self.ranges.append((start, stop))
            return self.memory.read(path, start, stop)
        finally:
            LocalNode.current = caller

    def write(self, data, slot=0):
        """Write a memory file as a rank of the node does, and return its record."""
        with self as memory:
            assert memory.open("run") is None
            folder = memory._folder.path / "attempt"
        folder.mkdir(exist_ok=True)
        (folder / f"state.{slot}").write_bytes(data)
        return MemoryFile(folder / f"state.{slot}", len(data), zlib.crc32(data))


@pytest.fixture
def two_nodes(tmp_path, monkeypatch):
    """Yield two nodes on one machine, with blocks of 10 bytes."""
    context = SimpleNamespace(get_node_id=lambda: LocalNode.current)
    fake = SimpleNamespace(get=lambda value: value, get_runtime_context=lambda: context)
    monkeypatch.setattr(node_memory, "ray", fake)
    monkeypatch.setattr(node_memory, "BLOCK_BYTES", 10)
    monkeypatch.setattr(memory_folder, "SHARED_MEMORY", tmp_path)
    nodes = LocalNode("first"), LocalNode("second")
    yield nodes
    for node in nodes:
        with node as memory:
            memory.close()


@pytest.mark.parametrize("size", [1, 9, 10, 11, 20, 35])
def test_a_copy_requests_each_block_once(two_nodes, size):
    first, second = two_nodes
    file = first.write(bytes(range(size)))
    with second as memory:
        copy = memory.copy(first, file)
    assert copy.path.read_bytes() == bytes(range(size))
    assert (copy.bytes, copy.crc32) == (file.bytes, file.crc32)
    assert first.ranges == [(start, min(start + 10, size)) for start in range(0, size, 10)]


def test_a_copy_over_a_longer_file_of_the_same_slot_has_the_new_size(two_nodes):
    first, second = two_nodes
    for data in (b"1" * 35, b"2" * 12, b"3" * 40):
        file = first.write(data)
        with second as memory:
            assert memory.copy(first, file).path.read_bytes() == data
    other = first.write(b"4" * 5, slot=1)
    with second as memory:
        copies = [memory.copy(first, file), memory.copy(first, other)]
    assert [copy.path.read_bytes() for copy in copies] == [b"3" * 40, b"4" * 5]


def test_a_copy_of_a_file_that_has_changed_is_refused_as_damaged(two_nodes):
    first, second = two_nodes
    file = first.write(b"1" * 35)
    file.path.write_bytes(b"1" * 34 + b"2")
    with second as memory, pytest.raises(DamagedCheckpointError, match="is damaged"):
        memory.copy(first, file)


def test_a_memory_folder_can_be_opened_again_after_it_was_closed(two_nodes):
    node = two_nodes[0]
    for data in (b"1", b"2"):
        file = node.write(data)
        with node as memory:
            memory.verify(file)
            memory.close()
        assert not file.path.exists()


def test_files_of_each_attempt_to_keep_are_kept(two_nodes):
    node = two_nodes[0]
    file = node.write(b"1")
    folder = file.path.parent
    for name in ("former", "restored"):
        (folder.parent / name).mkdir()
        (folder.parent / name / "state.0").touch()
    with node as memory:
        memory.keep_attempts(["attempt", "restored"])
    assert sorted(path.name for path in folder.parent.iterdir()) == ["attempt", "restored"]
    assert file.path.exists()


def test_a_single_node_has_no_next_node_and_several_nodes_form_a_ring():
    assert next_nodes(["a", "a"]) == {}
    assert next_nodes(["a", "a", "b", "b"]) == {"a": "b", "b": "a"}
    assert next_nodes(["c", "a", "b", "a"]) == {"c": "a", "a": "b", "b": "c"}
