"""List of the nodes that a run does not use although they are alive.

    run folder missing, other sources ──┐
    node check                        ──┼──▶ UnfitNodes ──▶ RankPool.offer leaves them out
    other checks of a node            ──┘

A supervisor has one list, for as long as it lives. A node that joins again, after `ray stop` and
`ray start`, has a new id and is therefore a new node.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class UnfitNode:
    """A node that a run does not use.

    Attributes:
        id: Ray's id of the node.
        reason: a sentence that names the node, its problem and the remedy, without a full stop.
        figures: the measured values of the node and the expected ones, as text; may be empty.
    """

    id: str
    reason: str
    figures: str = ""

    @property
    def text(self) -> str:
        """The reason, with the figures in parentheses."""
        return f"{self.reason} ({self.figures})" if self.figures else self.reason


class UnfitNodes:
    """The nodes on which no rank may start; several threads may add to it."""

    def __init__(self) -> None:
        self._nodes: dict[str, UnfitNode] = {}
        self._lock = threading.Lock()

    def add(self, node_id: str, reason: str, figures: str = "") -> UnfitNode:
        """Add a node; the first reason of a node is kept.

        Args:
            reason: see `UnfitNode`.
            figures: see `UnfitNode`.

        Returns:
            The entry of the node.
        """
        with self._lock:
            return self._nodes.setdefault(node_id, UnfitNode(node_id, reason, figures))

    def __contains__(self, node_id: object) -> bool:
        return node_id in self._nodes

    def __iter__(self) -> Iterator[UnfitNode]:
        """Iterate over the nodes, in the order in which they were added."""
        with self._lock:
            return iter(list(self._nodes.values()))

    def __len__(self) -> int:
        return len(self._nodes)

    @property
    def text(self) -> str:
        """The nodes with their reasons, for messages; empty without nodes."""
        return ". ".join(node.text for node in self)
