"""place.json: where the ranks of a run's last start were put, for whoever looks at the run."""

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated

from pydantic import Field

from data_pipeline.storage.durable import write_atomically
from data_pipeline.storage.regular_files import read_regular
from foundation.strict_json import SMALL, parse_object
from foundation.file_model import Count, FileModel
from trainer.runs.folder import RunFolder


class RankNodes(FileModel):
    """The ranks of a start by node, and when it was.

    Attributes:
        nodes: how many ranks each node got, by the node's name in messages.
    """

    since: str
    nodes: Annotated[dict[str, Count], Field(max_length=100_000)]

    @property
    def ranks(self) -> int:
        return sum(self.nodes.values())


def write_rank_nodes(run: RunFolder, nodes: Iterable[str]) -> None:
    """Keep where the ranks are; called by the run's owner.

    Nothing depends on it, so a full disk does not end the run.

    Args:
        nodes: the name of each rank's node.
    """
    since = datetime.now(UTC).isoformat(timespec="seconds")
    rank_nodes = RankNodes(since=since, nodes=dict(Counter(nodes)))
    with suppress(OSError):
        write_atomically(run.rank_nodes, rank_nodes.model_dump_json(indent=1) + "\n")


def read_rank_nodes(run: RunFolder) -> RankNodes | None:
    """What `write_rank_nodes` has kept; None if the run never got ranks.

    Raises:
        OSError, ValueError: there is something, and it cannot be read.
    """
    try:
        return RankNodes.model_validate(parse_object(read_regular(run.rank_nodes, SMALL.bytes)))
    except FileNotFoundError:
        return None
