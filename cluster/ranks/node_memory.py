"""Memory files of a run on one node, and access to those of other nodes.

    agent of a node ──read in blocks──▶ agent of the next node: a copy of each file
                    ──read in blocks──▶ rank that restores on another node

Agents read files only within the run's folder on their node. Blocks travel through Ray's object
store, which authenticates its processes.
"""

import io
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError

from cluster.ranks.agent_client import ANSWER_SECONDS, NodeAgents, wait
from cluster.ray.embedded import embedded_ray_is_lost
from run_store.checkpoints.format import CheckpointHeader
from run_store.checkpoints.memory_file import MemoryFile
from run_store.checkpoints.memory_folder import MemoryFolder, user_folders
from run_store.checkpoints.state_file import (
    BYTES_PER_ELEMENT,
    LENGTH_BYTES,
    LocalStateFile,
    StateFile,
    StoredFragment,
    read_layout,
)
from run_store.errors import CheckpointError, DamagedCheckpointError

if TYPE_CHECKING:
    import numpy as np
    import torch

BLOCK_BYTES = 32_000_000
BLOCKS_AHEAD = 2


def memory_folder_name(name: str) -> str:
    """Return the name of a run's folder in this node's memory; it contains the node's id."""
    return f"{name}-{ray.get_runtime_context().get_node_id()[:12]}"


def _run_name(folder: Path) -> str:
    """Return the name of the run, given a folder that `memory_folder_name` has named."""
    return folder.name.rsplit("-", 1)[0]


class NodeMemory:
    """Memory files on this node, as the node's agent serves them."""

    def __init__(self) -> None:
        self._folder: MemoryFolder | None = None

    def open(self, name: str) -> str | None:
        """Create and lock the run's folder on this node, unless that was done before.

        Returns:
            The problem if there is no such folder, or None.
        """
        if self._folder is None:
            try:
                self._folder = MemoryFolder(memory_folder_name(name))
            except CheckpointError as error:
                return str(error)
        return None

    def read(self, path: Path, start: int, stop: int) -> "np.ndarray[Any, Any]":
        """Return the bytes `[start, stop)` of a memory file.

        Raises:
            OSError: the file cannot be read.
        """
        import numpy as np

        content = np.memmap(_of_this_node(path), np.uint8, "r", offset=start, shape=(stop - start,))
        return content.view(np.ndarray)

    def verify(self, file: MemoryFile) -> None:
        """Run `MemoryFile.verify` on this node."""
        _of_this_node(file.path)
        file.verify()

    def copy(self, source: Any, file: MemoryFile) -> MemoryFile:
        """Copy a memory file of another node to this one, over an older copy of the same slot.

        Args:
            source: the agent of the file's node.
            file: the file on that node.

        Raises:
            CheckpointError: this node has no folder for the copy.
            OSError: this node has too little memory.
            RayError: the other node is lost.
            DamagedCheckpointError: the file has changed meanwhile.
        """
        attempt = file.path.parent
        if problem := self.open(_run_name(attempt.parent)):
            raise CheckpointError(problem)
        assert self._folder is not None
        folder = self._folder.path / attempt.name
        folder.mkdir(mode=0o700, exist_ok=True)
        target = folder / f"{file.path.name}.copy"
        handle = os.open(target, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "r+b") as output:
            os.posix_fallocate(handle, 0, file.bytes)
            for block in _blocks(source, file):
                output.write(block.data)
            output.truncate(file.bytes)
        copied = MemoryFile(target, file.bytes, file.crc32)
        copied.verify()
        return copied

    def keep_attempts(self, attempts: list[str]) -> None:
        """Remove the files of all attempts but these."""
        if self._folder is None:
            return
        for folder in self._folder.path.iterdir():
            if folder.name not in attempts:
                for file in folder.iterdir():
                    file.unlink(missing_ok=True)
                with suppress(OSError):  # a rank that was not killed yet has created another file
                    folder.rmdir()

    def close(self) -> None:
        """Remove the run's folder on this node."""
        if self._folder is not None:
            self._folder.remove()
            self._folder = None


class NodeMemories:
    """Folders of a run in the memory of its nodes, which the driver opens and closes."""

    def __init__(self, agents: NodeAgents) -> None:
        self._agents = agents
        self._is_open = False

    def open(self, name: str, nodes: Collection[str]) -> list[str]:
        """Create the run's folder in the memory of these nodes; return the problems.

        Args:
            name: the name of the run's folders, see `memory_folder_name`.
            nodes: the nodes, which have agents.
        """
        self._is_open = True
        asked = dict.fromkeys(nodes, name)
        answers = self._agents.ask(asked, lambda agent, name: agent.open_memory.remote(name))
        problems = dict.fromkeys(nodes, "its agent does not answer")
        problems |= self._agents.collect(answers, ANSWER_SECONDS)
        return [f"node {self._agents.names[n]}: {text}" for n, text in problems.items() if text]

    def close(self) -> None:
        """Remove the run's folders from the memory of all nodes, as far as agents answer."""
        if self._is_open and not embedded_ray_is_lost():
            agents = self._agents.by_node.values()
            wait([agent.close_memory.remote() for agent in agents], ANSWER_SECONDS)


def _of_this_node(path: Path) -> Path:
    """Check and return the path of a memory file, which may be older than this agent.

    Raises:
        CheckpointError: the path is not in a run's folder in this node's memory.
    """
    folder = path.parent.parent
    name = memory_folder_name(_run_name(folder))
    if folder.parent not in user_folders() or folder.name != name or ".." in path.parts:
        raise CheckpointError(f"{path} is not in a run's folder in this node's memory")
    return path


def _blocks(source: Any, file: MemoryFile) -> Iterator["np.ndarray[Any, Any]"]:
    """Yield the content of a file of another node, and request blocks ahead."""
    ranges = [
        (start, min(start + BLOCK_BYTES, file.bytes)) for start in range(0, file.bytes, BLOCK_BYTES)
    ]
    pending: list[Any] = []
    for index in range(len(ranges)):
        while len(pending) < BLOCKS_AHEAD and index + len(pending) < len(ranges):
            start, stop = ranges[index + len(pending)]
            pending.append(source.read_memory.remote(file.path, start, stop))
        yield ray.get(pending.pop(0))


@dataclass(frozen=True)
class StoredFile:
    """Memory file, and the node that has it.

    Attributes:
        file: the file.
        node: the id of its node.
        agent: the agent of that node.
    """

    file: MemoryFile
    node: str
    agent: Any

    @property
    def _is_here(self) -> bool:
        return bool(ray.get_runtime_context().get_node_id() == self.node)

    def verify(self) -> None:
        """Compare the file's size and checksum, on its node.

        Raises:
            DamagedCheckpointError: the file differs, or the node is lost.
        """
        if self._is_here:
            self.file.verify()
            return
        try:
            ray.get(self.agent.verify_memory.remote(self.file))
        except RayError as error:
            raise DamagedCheckpointError(
                f"{self.file.path} on node {self.node[:8]} cannot be verified: {error}"
            ) from error

    def open(self) -> StateFile:
        return LocalStateFile(self.file.path) if self._is_here else RemoteStateFile(self)


class PendingCopy:
    """Copy of a memory file to another node, which runs in that node's agent."""

    def __init__(self, file: MemoryFile, source: Any, target: Any, node: str) -> None:
        """Start the copy.

        Args:
            file: the file on the source's node.
            source: the agent of that node.
            target: the agent of the node that gets the copy.
            node: the id of that node.
        """
        self._target = target
        self._node = node
        self._answer = target.copy_memory.remote(source, file)

    def poll(self) -> StoredFile | None:
        """Return the copy, or None while it is not complete.

        Raises:
            CheckpointError: the file could not be copied.
        """
        if not ray.wait([self._answer], timeout=0)[0]:
            return None
        try:
            return StoredFile(ray.get(self._answer), self._node, self._target)
        except RayError as error:
            cause = str(error).strip().rsplit("\n", 1)[-1]
            raise CheckpointError(
                f"a memory checkpoint cannot be copied to node {self._node[:8]}: {cause}"
            ) from error


class RemoteStateFile:
    """State file in the memory of another node, read in blocks.

    Ranks read fragments in the order of the file, so the newest block serves most reads.
    """

    def __init__(self, stored: StoredFile) -> None:
        self.label = f"{stored.file.path} on node {stored.node[:8]}"
        self._stored = stored
        self._block_start = 0
        self._block = memoryview(b"")

    def fragments(self) -> list[StoredFragment]:
        return self._layout[0]

    def read_into(self, key: str, start: int, target: "torch.Tensor") -> None:
        import torch  # imported late, because agents start without torch

        position = self._layout[1][key] + start * BYTES_PER_ELEMENT
        left = target.view(torch.uint8).numpy().data
        while left:
            part = self._part(position)[: len(left)]
            left[: len(part)] = part
            left, position = left[len(part) :], position + len(part)

    @cached_property
    def _layout(self) -> tuple[list[StoredFragment], dict[str, int]]:
        size = self._stored.file.bytes
        length = LENGTH_BYTES + int.from_bytes(self._part(0)[:LENGTH_BYTES], "little")
        header = b""
        while len(header) < min(length, size):
            header += self._part(len(header))
        try:
            return read_layout(io.BytesIO(header), size)
        except ValueError as error:
            raise CheckpointError(f"{self.label} is damaged: {error}") from error

    def _part(self, position: int) -> memoryview:
        """Return the bytes from a position in the file to the end of the position's block."""
        offset = position - self._block_start
        if not 0 <= offset < len(self._block):
            start = position - position % BLOCK_BYTES
            stop = min(start + BLOCK_BYTES, self._stored.file.bytes)
            path = self._stored.file.path
            try:
                block = ray.get(self._stored.agent.read_memory.remote(path, start, stop))
            except RayError as error:
                raise DamagedCheckpointError(f"{self.label} cannot be read: {error}") from error
            self._block_start, self._block = start, block.data
            offset = position - start
        return self._block[offset:]


@dataclass(frozen=True)
class MemoryCheckpoint:
    """State of a step in the memory of nodes; implements `SavedState` of `checkpoints.checkpoint`.

    Attributes:
        header: the header of the checkpoint; its list of files is empty.
        files: the file of each rank that saved the step.
    """

    header: CheckpointHeader
    files: tuple[StoredFile, ...]

    @property
    def step(self) -> int:
        return self.header.step

    @property
    def label(self) -> str:
        return f"the memory checkpoint of step {self.step}"

    def open_files(self) -> list[StateFile]:
        return [file.open() for file in self.files]

    def verify_share(self, rank: int, world_size: int) -> None:
        for file in self.files[rank::world_size]:
            file.verify()


def next_nodes(nodes: Sequence[str]) -> dict[str, str]:
    """Return for each node the one that copies its memory files; empty for a single node.

    Args:
        nodes: the node of each rank.
    """
    ring = list(dict.fromkeys(nodes))
    return dict(zip(ring, [*ring[1:], ring[0]], strict=True)) if len(ring) > 1 else {}
