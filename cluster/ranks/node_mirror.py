"""A node's copy of a run in an object store, if the node does not share the driver's folder.

    NodeMirror.pull      object store ──▶ this node: the record, and the checkpoints' headers
    pull_run             the driver asks the agents of several nodes to pull
    NodeMirror.changes   this node ──▶ driver: bytes of files that the ranks have written

Only the driver uploads these files, because it alone may change the run's head. The ranks' state
files are large and go to the object store directly.
"""

import os
import shutil
import zlib
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from ray.exceptions import RayTaskError

from cluster.ranks.agent_client import NodeAgents, wait
from cluster.ray.environment_file import read_environment
from data_pipeline.storage.regular_files import open_regular, write_atomically
from trainer.checkpoints.run_copies import mirror_folder
from trainer.runs.remote.files import FileStamp, KnownFiles, local_files

if TYPE_CHECKING:
    from trainer.job.rank_job import RankJob  # agents do not need recipes

# Files and directories in which ranks write; the driver writes the others.
RANK_FILES = ("metrics.jsonl", "curves.bin", "translations", "time-lapse", "wandb", "profile")
# Those in which ranks other than rank 0 write, too.
SHARED_RANK_FILES = ("profile",)
PULL_SECONDS = 120.0
MAX_ANSWER_BYTES = 16 * 1024**2
# Bytes before the new ones that are compared, so that a rewritten file does not count as grown.
COMPARED_BYTES = 4 * 1024**2


class SentFile(NamedTuple):
    """State of a file that the receiver has.

    Attributes:
        stamp: by which a change is noticed.
        crc32: checksum of the last `COMPARED_BYTES`, by which a change is known to be growth.
    """

    stamp: FileStamp
    crc32: int

    @classmethod
    def of(cls, path: Path) -> "SentFile":
        stamp = FileStamp.of(path.stat())
        with open_regular(path) as file:
            return cls(stamp, zlib.crc32(_bytes_before(file, stamp.bytes)))


@dataclass(frozen=True)
class FileChange:
    """Bytes that a rank has written to a file.

    Attributes:
        name: the file's path in the run folder.
        offset: the position of the bytes; at 0, they replace the whole file.
        data: the bytes.
        stamp: the state of the file that the receiver then has.
    """

    name: str
    offset: int
    data: bytes
    stamp: SentFile

    def apply(self, folder: Path) -> None:
        """Write the bytes to the same file in another folder.

        Raises:
            OSError: the file cannot be written, or is shorter than the offset.
        """
        path = folder / self.name
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.offset == 0:
            write_atomically(path, self.data)
            return
        with path.open("r+b") as file:
            if file.seek(0, os.SEEK_END) < self.offset:
                raise OSError(f"{path} has fewer than {self.offset:,} bytes")
            file.seek(self.offset)
            file.truncate()
            file.write(self.data)


class NodeMirror:
    """The node's copy of a run, in the node's agent."""

    def __init__(self, url: str) -> None:
        read_environment()  # has the credentials of the object store
        self.folder = mirror_folder(url)
        self._url = url

    def answer_probe(self, work: str, left: str, answer: str) -> None:
        """Create a file next to the driver's, if this node sees it: it shares the folder then."""
        folder = self.folder / "checkpoints" / work
        if (folder / left).exists():
            (folder / answer).touch()

    def pull(self, work: str, *, with_files: bool) -> dict[str, SentFile]:
        """Make the copy equal to the run, with an empty work folder.

        Args:
            work: the name of the owner's work folder.
            with_files: whether to copy the record and other small files, too, for rank 0.

        Returns:
            The state of each file in which ranks write.

        Raises:
            TrainerError: the run is damaged.
            OSError: the object store does not answer, or the folder cannot be written.
        """
        from data_pipeline.storage.object_store import ObjectStore  # imports obstore
        from trainer.runs.remote.pull import RunPuller

        store, known = ObjectStore(self._url), KnownFiles(self.folder)
        RunPuller(store, known, wants=lambda name: with_files).pull()
        checkpoints = self.folder / "checkpoints"
        for former in checkpoints.glob(".work-*"):
            shutil.rmtree(former, ignore_errors=True)
        (checkpoints / work).mkdir()
        return {name: SentFile.of(self.folder / name) for name in self._names(RANK_FILES)}

    def changes(
        self, known: Mapping[str, SentFile], names: Collection[str] = RANK_FILES
    ) -> tuple[list[FileChange], bool]:
        """Return what ranks have written, and whether that is everything.

        Args:
            known: the state of each file that the driver has.
            names: the files and directories to consider.
        """
        changes: list[FileChange] = []
        left = MAX_ANSWER_BYTES
        for name in self._names(names):
            with suppress(OSError):  # the file was removed meanwhile
                if change := _change(self.folder / name, name, known.get(name), left):
                    changes.append(change)
                    left -= len(change.data)
            if not left:
                break
        return changes, bool(left)

    def _names(self, wanted: Collection[str]) -> Iterable[str]:
        return [name for name in local_files(self.folder) if name.split("/")[0] in wanted]


def _change(path: Path, name: str, known: SentFile | None, most: int) -> FileChange | None:
    """Return the change of a file, at most `most` bytes of it, or None without a change."""
    with open_regular(path) as file:
        now = FileStamp.of(os.fstat(file.fileno()))
        if known and now == known.stamp:
            return None
        offset, before = 0, b""
        if known and known.stamp.inode == now.inode and known.stamp.bytes < now.bytes:
            before = _bytes_before(file, known.stamp.bytes)
            offset = known.stamp.bytes
            if zlib.crc32(before) != known.crc32:  # truncated in place, and regrown
                offset, before = 0, b""
        file.seek(offset)
        data = file.read(min(most, now.bytes - offset))
    checksum = zlib.crc32((before + data)[-COMPARED_BYTES:])
    return FileChange(
        name, offset, data, SentFile(now._replace(bytes=offset + len(data)), checksum)
    )


def _bytes_before(file: BinaryIO, position: int) -> bytes:
    """Return the last `COMPARED_BYTES` before a position."""
    start = max(0, position - COMPARED_BYTES)
    file.seek(start)
    return file.read(position - start)


def pull_run(
    agents: NodeAgents, work: str, nodes: Collection[str], first: Collection[str]
) -> tuple[dict[str, dict[str, SentFile]], list[str]]:
    """Pull a run in an object store to nodes that do not share the driver's folder.

    Args:
        work: the name of the owner's work folder.
        nodes: the nodes that need only the checkpoints.
        first: the node of rank 0, which needs all files, if it is among them.

    Returns:
        The state of the files on each node, and the problems of nodes, which become unfit.

    Raises:
        SilentNodesError: nodes have not answered in time.
    """
    answers = agents.ask(
        {node: node in first for node in [*nodes, *first]},
        lambda agent, is_first: agent.pull_run.remote(work, with_files=is_first),
    )
    wait(answers.values(), PULL_SECONDS, agents.give_up)
    if agents.give_up():
        return {}, []
    silence = f"has not pulled the run within {PULL_SECONDS:.0f} s"
    results, silent = agents.gather(answers, silence)
    failed = {
        node: f"Node {agents.names[node]} cannot pull the run: {error.cause}"
        for node, error in results.items()
        if isinstance(error, RayTaskError)
    }
    problems = agents.refuse(failed, silent)
    return {node: files for node, files in results.items() if node not in failed}, problems


def job_on_this_node(job: "RankJob") -> "RankJob":
    """Return the job of a run in an object store with the paths of this node."""
    if job.url is None:
        return job
    run = mirror_folder(job.url)
    checkpoints = run / "checkpoints"
    return replace(
        job,
        run=run,
        work=checkpoints / job.work.name,
        checkpoint=checkpoints / job.checkpoint.name if job.checkpoint else None,
    )
