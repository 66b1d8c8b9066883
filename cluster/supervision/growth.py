"""When a run is started anew because the cluster has room for more ranks."""

from collections.abc import Callable

from cluster.supervision.interval import Interval

CHECK_SECONDS = 5.0
# Time for which there must have been room for more ranks, while the present ranks trained.
GROW_AFTER_SECONDS = 60.0


class Growth:
    """Since when there has been room."""

    def __init__(self) -> None:
        self._checks = Interval(CHECK_SECONDS)
        self._since: float | None = None

    def is_due(self, ranks: int, count_room: Callable[[], int], now: float) -> bool:
        """Whether there has been room for more than `ranks` ranks for long enough."""
        if self._checks.has_passed(now):
            if count_room() <= ranks:
                self._since = None
            elif self._since is None:
                self._since = now
        return self._since is not None and now - self._since >= GROW_AFTER_SECONDS
