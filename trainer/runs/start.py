"""Command, code and packages of a run's last start, in start.json, and its nodes, in place.json.

No other part reads start.json to decide anything; it documents the origin of a curve. It holds no
secrets: for a git checkout, it has only the commit and whether files differ from that commit. The
command is saved as the user typed it, but without credentials in paths and URLs.
"""

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import Field

from data_pipeline.storage.regular_files import read_regular, write_atomically
from foundation.file_model import SMALL, Count, FileModel
from trainer.runs.folder import RunFolder

MAX_CHARACTERS = 4000  # maximum length of a command


class Code(FileModel):
    """State of a git checkout.

    Attributes:
        commit: the commit that is checked out.
        dirty: whether tracked files differ from the commit.
    """

    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{40,64}$")]
    dirty: bool

    def __str__(self) -> str:
        return f"commit {self.commit[:8]}{', with changes' if self.dirty else ''}"


class Invocation(FileModel):
    """Command that the user typed, and the state of its directory.

    Attributes:
        command: the command, or None if a user's program called transloom's functions.
        project: the checkout of the working directory, or None if it is not a git checkout.
    """

    command: Annotated[str, Field(max_length=MAX_CHARACTERS)] | None = None
    project: Code | None = None


class Start(FileModel):
    """Start of a run.

    Attributes:
        since: the time of the start, in UTC.
        invocation: the command and its directory.
        code: the checkout of transloom, or None if it is an installed package.
        versions: the versions of transloom and of the libraries that affect its results, by
            package.
    """

    version: Literal[1] = 1
    since: str
    invocation: Invocation
    code: Code | None
    versions: dict[str, str]


def write_start(run: RunFolder, start: Start) -> None:
    """Save a start of the run; only the run's owner may call it. A full disk causes no error."""
    with suppress(OSError):
        write_atomically(run.start, start.model_dump_json(indent=1) + "\n")


def read_start(run: RunFolder) -> Start | None:
    """Return the content that `write_start` saved, or None if it is missing or unreadable."""
    try:
        return Start.from_json(read_regular(run.start, SMALL.bytes))
    except (OSError, ValueError):
        return None


class RankNodes(FileModel):
    """Number of ranks on each node, and the time of the start.

    Attributes:
        since: the time in UTC, in ISO format.
        nodes: the number of ranks of each node, by the node's name in messages.
    """

    since: str
    nodes: Annotated[dict[str, Count], Field(max_length=100_000)]

    @property
    def ranks(self) -> int:
        return sum(self.nodes.values())


def write_rank_nodes(run: RunFolder, nodes: Iterable[str]) -> None:
    """Save the nodes of the ranks; called by the run's owner.

    Nothing depends on the file, so a full disk does not end the run.

    Args:
        run: the run's folder.
        nodes: the name of each rank's node.
    """
    since = datetime.now(UTC).isoformat(timespec="seconds")
    rank_nodes = RankNodes(since=since, nodes=dict(Counter(nodes)))
    with suppress(OSError):
        write_atomically(run.rank_nodes, rank_nodes.model_dump_json(indent=1) + "\n")


def read_rank_nodes(run: RunFolder) -> RankNodes | None:
    """Return the nodes that `write_rank_nodes` saved, or None if no ranks were started.

    Raises:
        OSError, ValueError: the file exists and cannot be read.
    """
    try:
        return RankNodes.from_json(read_regular(run.rank_nodes, SMALL.bytes))
    except FileNotFoundError:
        return None
