"""Notice the ends of processes within milliseconds, with one pending request per node.

The agent of a node answers as soon as one of the processes has ended (`dead_processes_here`). Ray
reports a death later, and only after seconds while its head does not respond. If an agent does not
answer, Ray's report is the only one.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from ray.exceptions import RayError

from cluster.ranks.agent_client import arrived_answers
from cluster.ranks.node_processes import ProcessName

# Time after which an agent answers even if no process has ended, so that requests of former groups
# do not stay pending.
ANSWER_SECONDS = 10.0
RETRY_SECONDS = 0.5


class DeathWatch:
    """Watch over the processes of a group; no method blocks.

    Attributes:
        dead: the processes that have ended.
    """

    def __init__(self, agents: Mapping[str, Any], processes: Iterable[ProcessName]) -> None:
        """Prepare the watch, which sends its first requests with the first `poll`.

        Args:
            agents: the agents by node id; processes on other nodes are not watched.
        """
        self.dead: set[ProcessName] = set()
        self._agents = agents
        self._alive: dict[str, list[ProcessName]] = {}
        for process in processes:
            if process.node in agents:
                self._alive.setdefault(process.node, []).append(process)
        self._answers: dict[str, Any] = {}  # pending answers, by node
        self._ask_at = dict.fromkeys(self._alive, 0.0)

    @property
    def pending(self) -> list[Any]:
        """Requests to agents that have not been answered."""
        return list(self._answers.values())

    def poll(self, now: float) -> None:
        """Take the answers that have arrived, and send the next requests."""
        for node, answer in arrived_answers(self._answers).items():
            del self._answers[node]
            if isinstance(answer, RayError):  # the agent is lost, and Ray starts another one
                self._ask_at[node] = now + RETRY_SECONDS
                continue
            self.dead.update(answer)
            self._alive[node] = [one for one in self._alive[node] if one not in self.dead]
        for node, alive in self._alive.items():
            if alive and node not in self._answers and now >= self._ask_at[node]:
                request = self._agents[node].dead_processes
                self._answers[node] = request.remote(alive, ANSWER_SECONDS)
