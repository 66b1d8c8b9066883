"""View of the cluster's nodes according to Ray's head, refreshed by a thread.

A request to a lost head blocks for up to a minute, and then Ray ends the process. The supervisor
therefore queries nodes only through this module, which reports a lost head in time. During a
shorter outage the supervisor waits, because ranks can train without the head.
"""

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

import ray

from cluster.errors import HeadLostError
from cluster.health.suspend_aware_clock import SuspendAwareClock
from cluster.ray import private
from cluster.ray.embedded import check_embedded_ray, embedded_ray_is_lost
from foundation.periodic_thread import PeriodicThread

POLL_SECONDS = 1.0
# The user is notified when the head has not answered for this long.
WARN_AFTER_SECONDS = 5.0


@dataclass(frozen=True)
class Node:
    """A node that is alive.

    Attributes:
        name: the node's name in messages.
        free: amounts of unreserved resources.
        total: amounts of all resources, reserved or not.
        leaves_at: time at which a draining node ends (seconds since the epoch), infinity if no time
            was given; None if the node is not being drained.
        labels: labels given to the node's `ray start`, and labels that Ray adds.
    """

    id: str
    name: str
    free: Mapping[str, float]
    total: Mapping[str, float]
    leaves_at: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


class ClusterView(PeriodicThread):
    """Snapshot of the cluster's nodes, about a second old."""

    def __init__(self, wait_seconds: float, notice: Callable[[str], None]) -> None:
        """Configure the refreshing thread; entering the context starts it.

        Args:
            wait_seconds: how long the head may be unreachable before HeadLostError is raised.
            notice: called with a message when the head stops answering, and when it answers again.
        """
        # The thread is not joined at the end, because it may still wait for a lost head.
        super().__init__("cluster view", POLL_SECONDS, self._refresh, at_once=True, join_seconds=0)
        self._wait_seconds = wait_seconds
        self._notice = notice
        self._told = False
        self._answered = threading.Condition()

    def __enter__(self) -> Self:
        self._clock = SuspendAwareClock()
        self._asked_at = time.monotonic()
        self._nodes = _ask()
        self._seen, self._seen_at = self._asked_at, self._clock.poll()
        return super().__enter__()

    def nodes(self) -> dict[str, Node]:
        """Return the nodes by id, as of about a second ago.

        Raises:
            HeadLostError: the head has not answered within the allowed time.
            EmbeddedRayError: the Ray that this process has started is lost.
        """
        with self._answered:
            self._check_head()
            return self._nodes

    def query_nodes(self, give_up: Callable[[], bool] = lambda: False) -> dict[str, Node]:
        """Return the nodes by id, as of now; raise the same errors as `nodes`.

        Args:
            give_up: returns True to get the last known nodes instead, while the head does not
                answer.
        """
        since = time.monotonic()
        self.wake()
        with self._answered:
            while self._asked_at < since and not give_up():
                self._answered.wait(POLL_SECONDS)
                self._check_head()
            return self._nodes

    def _check_head(self) -> None:
        check_embedded_ray(alive_nodes=len(self._nodes))
        now = self._clock.poll()
        if self._asked_at != self._seen:
            self._seen, self._seen_at = self._asked_at, now
            if self._told:
                self._told = False
                self._notice("Ray's head answers again")
        elif now - self._seen_at > self._wait_seconds:
            raise HeadLostError(
                f"Ray's head has not answered for {self._wait_seconds:g} s "
                "(cluster.wait_for_head_seconds), so it is lost or cannot be reached. Once the "
                "head is back, run the same command to continue from the newest checkpoint"
            )
        elif now - self._seen_at > WARN_AFTER_SECONDS and not self._told:
            self._told = True
            self._notice(
                f"Ray's head has not answered for {WARN_AFTER_SECONDS:g} s; waiting for it for up "
                f"to {self._wait_seconds:g} s in total, while the ranks continue to train"
            )

    def _refresh(self) -> None:
        if embedded_ray_is_lost():
            # Send no request: a minute after a request to a dead head, Ray ends this process, even
            # if the process has started another Ray in the meantime.
            return
        asked_at = time.monotonic()
        # A request may raise exceptions of many types; all mean that the head did not answer.
        with suppress(Exception):
            nodes = _ask()
            with self._answered:
                self._asked_at, self._nodes = asked_at, nodes
                self._answered.notify_all()


def _ask() -> dict[str, Node]:
    free = private.free_resources()
    leaving = private.draining_nodes()
    return {
        node["NodeID"]: Node(
            id=node["NodeID"],
            name=f"{node['NodeManagerAddress']} ({node['NodeID'][:8]})",
            free=free.get(node["NodeID"], {}),
            total=node["Resources"],
            leaves_at=_seconds(leaving.get(node["NodeID"])),
            labels=node["Labels"],
        )
        for node in ray.nodes()
        if node["Alive"]
    }


def _seconds(deadline_milliseconds: int | None) -> float | None:
    if deadline_milliseconds is None:
        return None
    return deadline_milliseconds / 1000 if deadline_milliseconds else float("inf")
