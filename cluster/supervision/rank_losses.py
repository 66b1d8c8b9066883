"""Which losses of ranks a run survives: all but three in a row without progress in between.

A loss that came with the loss of a node does not count as a failure of the run, once for each node.
"""

from collections.abc import Mapping

from cluster.errors import RankLostError

ATTEMPTS_WITHOUT_PROGRESS = 3


class RankLosses:
    """The losses of ranks in a session."""

    def __init__(self) -> None:
        self._restarts = 0
        self._without_progress = 0
        self._lost_nodes: set[str] = set()

    def take(
        self,
        error: RankLostError,
        *,
        lost_nodes: Mapping[str, str],
        progressed: bool,
        furthest_step: int,
    ) -> str:
        """Count a loss; return what to say of it.

        Args:
            lost_nodes: the lost nodes of the attempt by id, each with its name.
            progressed: whether the attempt got further than all attempts before.
            furthest_step: the last step that any attempt has trained.

        Raises:
            RankLostError: it was one loss too many.
        """
        # A node that comes back and is lost again counts as a failure.
        newly_lost = {node: lost_nodes[node] for node in lost_nodes.keys() - self._lost_nodes}
        self._lost_nodes |= newly_lost.keys()
        self._restarts += 1
        if progressed:
            self._without_progress = 0
        elif not newly_lost:
            self._without_progress += 1
        if self._without_progress == ATTEMPTS_WITHOUT_PROGRESS:
            raise RankLostError(
                f"{error}. The run got no further than step {furthest_step} in "
                f"{ATTEMPTS_WITHOUT_PROGRESS} attempts"
            ) from error
        because = "".join(
            f"; node {name} is lost, which is no failure of the run"
            for name in sorted(newly_lost.values())
        )
        return f"{error}{because}; restart {self._restarts} of this session"
