"""Nodes of the ranks of a run's last start, in place.json."""

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated

from pydantic import Field

from data_pipeline.storage.durable import write_whole
from data_pipeline.storage.regular_files import read_regular
from foundation.strict_json import SMALL, parse_object
from foundation.written import Count, Written
from trainer.runs.folder import RunFolder


class RankNodes(Written):
    """Numbers of ranks by node, and the time of the start.

    Attributes:
        since: the time in UTC, in ISO format.
        nodes: the number of ranks of each node, by the node's name in messages.
    """

    since: str
    nodes: Annotated[dict[str, Count], Field(max_length=100_000)]

    @property
    def ranks(self) -> int:
        return sum(self.nodes.values())


def write_place(run: RunFolder, nodes: Iterable[str]) -> None:
    """Save the nodes of the ranks; called by the run's owner.

    Nothing depends on the file, so a full disk does not end the run.

    Args:
        run: the run's folder.
        nodes: the name of each rank's node.
    """
    since = datetime.now(UTC).isoformat(timespec="seconds")
    place = RankNodes(since=since, nodes=dict(Counter(nodes)))
    with suppress(OSError):
        write_whole(run.place, place.model_dump_json(indent=1) + "\n")


def read_place(run: RunFolder) -> RankNodes | None:
    """Return the content that `write_place` saved, or None if the run never got ranks.

    Raises:
        OSError, ValueError: the file exists and cannot be read.
    """
    try:
        return RankNodes.model_validate(parse_object(read_regular(run.place, SMALL.bytes)))
    except FileNotFoundError:
        return None
