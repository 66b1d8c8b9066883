"""Retry budgets: limits on consecutive failures without a further step.

The same count applies at three levels, each with a separate limit:

    attempts of a job           job runner     `cluster.retries` and the first one
    sessions of embedded Ray    supervisor     SESSIONS_WITHOUT_PROGRESS
    attempts of ranks           restart loop   ATTEMPTS_WITHOUT_PROGRESS; `RankLosses`
"""

from collections.abc import Mapping

from cluster.errors import RankLostError

ATTEMPTS_WITHOUT_PROGRESS = 3
# Higher, because Ray gives its agents only 15 s to start, sometimes too little on a busy machine.
SESSIONS_WITHOUT_PROGRESS = 5


class RetryBudget:
    """Number of consecutive failures without progress, and its limit.

    Attributes:
        furthest_step: the last step that any attempt has reached.
        failures: number of consecutive failures without progress.
    """

    def __init__(self, limit: int, furthest_step: int = 0) -> None:
        self.limit = limit
        self.furthest_step = furthest_step
        self.failures = 0
        self._progressed = False

    def begin(self, step: int) -> None:
        """Record the step from which an attempt starts, which is no progress yet."""
        self.furthest_step = max(step, self.furthest_step)

    def reach(self, step: int) -> None:
        """Record the last step of an attempt."""
        self._progressed = step > self.furthest_step
        self.furthest_step = max(step, self.furthest_step)

    def count_failure(self, *, excused: bool = False) -> bool:
        """Count the failure of the last attempt; return whether the budget is used up.

        Args:
            excused: True to ignore the failure, for example because a node was lost.
        """
        if self._progressed:
            self.failures = 0
        elif not excused:
            self.failures += 1
        return self.failures == self.limit

    def used_up_text(self, attempts: str) -> str:
        """Return the message for a budget that is used up.

        Args:
            attempts: plural noun for the counted attempts.
        """
        return f"The run got no further than step {self.furthest_step} in {self.limit} {attempts}"


class RankLosses(RetryBudget):
    """Retry budget for the losses of ranks in a session.

    A loss that coincides with the loss of a node is excused, once for each node.
    """

    def __init__(self) -> None:
        super().__init__(ATTEMPTS_WITHOUT_PROGRESS)
        self._restarts = 0
        self._lost_nodes: set[str] = set()

    def take(self, error: Exception, lost_nodes: Mapping[str, str]) -> str:
        """Count the end of an attempt by an error, and return its notice.

        Args:
            lost_nodes: the lost nodes of the attempt by id, each with its name.

        Raises:
            RankLostError: the budget is used up.
        """
        # A node that returns and is lost again counts as a failure.
        newly_lost = {node: lost_nodes[node] for node in lost_nodes.keys() - self._lost_nodes}
        self._lost_nodes |= newly_lost.keys()
        self._restarts += 1
        if self.count_failure(excused=bool(newly_lost)):
            raise RankLostError(f"{error}. {self.used_up_text('attempts')}") from error
        because = "".join(
            f"; node {name} is lost, which does not count as a failure"
            for name in sorted(newly_lost.values())
        )
        return f"{error}{because}; restart {self._restarts} of this session"
