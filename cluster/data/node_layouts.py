"""Layouts of windows for the ranks of a node, each requested only once per node.

    ranks ──▶ agent of the node ──one request──▶ data worker
    ranks ◀── a reference ◀── agent
    ranks ◀─────────────── the layout ─────────────────┘

The agent passes references to the ranks, which fetch the layouts without the agent. If the agent
dies, its references are lost. Ranks then send their requests to a data worker, like ranks without
an agent.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError

# Maximum number of references that an agent keeps. A step of many ranks has several windows, and
# ranks are at most a few steps apart. A rank that asks for an older layout makes the agent request
# it again.
MAX_KEPT = 64


@dataclass(frozen=True)
class NodeSharing:
    """Access of a rank to the layouts of its node.

    Attributes:
        agent: the actor that requests the layouts; one of its methods runs
            `NodeLayouts.reference`.
        attempt: the attempt at the run.
    """

    agent: Any
    attempt: str


class NodeLayouts:
    """References of an agent to the layouts that it has requested for the ranks of its node."""

    def __init__(self) -> None:
        self._references: dict[Hashable, Any] = {}
        self._intact: set[Hashable] = set()

    def reference(self, worker: Any, attempt: str, epoch: int, window: int) -> Any:
        """Return the reference to a layout.

        The layout is requested if no rank has asked for it, or if the last request has failed.

        Args:
            worker: the data worker to request the layout from.
        """
        key = attempt, epoch, window
        if self._has_failed(key):
            del self._references[key]
        if key not in self._references:
            self._references[key] = worker.layout.remote(epoch, window)
            if len(self._references) > MAX_KEPT:
                del self._references[next(iter(self._references))]
            self._intact &= self._references.keys()
        return self._references[key]

    def _has_failed(self, key: Hashable) -> bool:
        """Return whether the request of a layout has ended with an error."""
        if key not in self._references or key in self._intact:
            return False
        reference = self._references[key]
        if not ray.wait([reference], timeout=0, fetch_local=False)[0]:
            return False
        try:
            ray.get(reference, timeout=0)
        except GetTimeoutError:  # the layout is intact, on another node
            pass
        except RayError:
            return True
        self._intact.add(key)
        return False
