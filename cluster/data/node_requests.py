"""Requests of the ranks of a node to data workers, sent once for all of these ranks.

    ranks ──▶ agent of the node ──one request──▶ data worker
    ranks ◀── references ◀── agent
    ranks ◀───────────── the data, a part for each rank ─────────────

The agent passes on references, so that no data goes through it. Its references are lost if it dies.
Ranks then ask a data worker themselves, as ranks without an agent do.
"""

from dataclasses import dataclass
from typing import Any

# Maximum number of requests that not all ranks have taken. A rank that asks for an older one makes
# the agent send it again.
MAX_OPEN = 64


@dataclass(frozen=True)
class NodeRequest:
    """Request that all ranks of a node make, each for its part of the answer.

    Attributes:
        attempt: the attempt at the run to which the ranks belong.
        method: the method of the data worker.
        arguments: its arguments.
        parts: the number of parts of its answer.
        takers: the number of ranks that take a part.
    """

    attempt: str
    method: str
    arguments: tuple[Any, ...]
    parts: int
    takers: int


@dataclass(frozen=True)
class NodeSharing:
    """How a rank shares requests with the other ranks of its node.

    Attributes:
        agent: the actor that sends the requests.
        attempt: the attempt at the run.
        ranks: the ranks of the node, in their order.
    """

    agent: Any
    attempt: str
    ranks: tuple[int, ...]


class NodeRequests:
    """Requests that the agent of a node has sent, until all ranks have taken their parts."""

    def __init__(self) -> None:
        self._attempt = ""
        self._parts: dict[NodeRequest, list[Any]] = {}
        self._takers: dict[NodeRequest, int] = {}

    def take(self, worker: Any, request: NodeRequest, part: int) -> Any:
        """Return the reference to a part of the answer; send the request if no rank has made it.

        Args:
            worker: the data worker that answers the request if it has not been sent.
            part: the index of the part.
        """
        if request.attempt != self._attempt:
            self._attempt = request.attempt
            self._parts.clear()
            self._takers.clear()
        if request not in self._parts:
            answer = (
                getattr(worker, request.method)
                .options(num_returns=request.parts)
                .remote(*request.arguments)
            )
            self._parts[request] = answer if request.parts > 1 else [answer]
            self._takers[request] = request.takers
        reference = self._parts[request][part]
        self._takers[request] -= 1
        if not self._takers[request]:
            self._forget(request)
        elif len(self._parts) > MAX_OPEN:
            self._forget(next(iter(self._parts)))
        return reference

    def _forget(self, request: NodeRequest) -> None:
        del self._parts[request], self._takers[request]
