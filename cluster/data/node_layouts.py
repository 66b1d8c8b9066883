"""Layouts of windows for the ranks of a node, requested once for all of them.

    ranks ──▶ agent of the node ──one request──▶ data worker
    ranks ◀── a reference ◀── agent
    ranks ◀─────────────── the layout ─────────────────┘

The agent passes on references, so that no layout goes through it. Its references are lost if it
dies. Ranks then ask a data worker themselves, as ranks without an agent do.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

# Maximum number of references that an agent keeps. A step of many ranks has several windows, and
# ranks are at most a few steps apart. A rank that asks for an older layout makes the agent request
# it again.
MAX_KEPT = 64


@dataclass(frozen=True)
class NodeSharing:
    """Access of a rank to the layouts of its node.

    Attributes:
        agent: the actor that requests them, with a method that runs `NodeLayouts.reference`.
        attempt: the attempt at the run.
    """

    agent: Any
    attempt: str


class NodeLayouts:
    """References of an agent to the layouts that it has requested for the ranks of its node."""

    def __init__(self) -> None:
        self._references: dict[Hashable, Any] = {}

    def reference(self, worker: Any, attempt: str, epoch: int, window: int) -> Any:
        """Return the reference to a layout; request the layout if no rank has asked for it.

        Args:
            worker: the data worker of which it is requested.
        """
        key = attempt, epoch, window
        if key not in self._references:
            self._references[key] = worker.layout.remote(epoch, window)
            if len(self._references) > MAX_KEPT:
                del self._references[next(iter(self._references))]
        return self._references[key]
