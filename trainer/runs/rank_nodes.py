"""Nodes of the ranks of a run's last start, in place.json."""

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated

from pydantic import Field

from data_pipeline.storage.durable import write_atomically
from data_pipeline.storage.regular_files import read_regular
from foundation.file_model import Count, FileModel
from foundation.strict_json import SMALL, parse_object
from trainer.runs.folder import RunFolder


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
        return RankNodes.model_validate(parse_object(read_regular(run.rank_nodes, SMALL.bytes)))
    except FileNotFoundError:
        return None
