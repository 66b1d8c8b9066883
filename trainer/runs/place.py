"""place.json: where the ranks of a run's last start were put, for whoever looks at the run."""

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
    """The ranks of a start by node, and when it was.

    Attributes:
        nodes: how many ranks each node got, by the node's name in messages.
    """

    since: str
    nodes: Annotated[dict[str, Count], Field(max_length=100_000)]

    @property
    def ranks(self) -> int:
        return sum(self.nodes.values())


def write_place(run: RunFolder, nodes: Iterable[str]) -> None:
    """Keep where the ranks are; called by the run's owner.

    Nothing depends on it, so a full disk does not end the run.

    Args:
        nodes: the name of each rank's node.
    """
    since = datetime.now(UTC).isoformat(timespec="seconds")
    place = RankNodes(since=since, nodes=dict(Counter(nodes)))
    with suppress(OSError):
        write_whole(run.place, place.model_dump_json(indent=1) + "\n")


def read_place(run: RunFolder) -> RankNodes | None:
    """What `write_place` has kept; None if the run never got ranks.

    Raises:
        OSError, ValueError: there is something, and it cannot be read.
    """
    try:
        return RankNodes.model_validate(parse_object(read_regular(run.place, SMALL.bytes)))
    except FileNotFoundError:
        return None
