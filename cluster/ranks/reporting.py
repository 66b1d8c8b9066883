"""Methods of an actor that reports to its supervisor, such as a rank. They do not import torch."""

from collections.abc import Callable

import ray

from cluster.ranks.node_processes import ProcessName
from cluster.ranks.reports import Mailbox, ReportBatch


class ReportingMethods:
    """Methods of an actor with a mailbox, which the supervisor empties.

    The actor has a concurrency group `control`, and a group `reports` with one thread, in which a
    poll may wait.
    """

    def __init__(self, on_heartbeat: Callable[[], None]) -> None:
        """Create the mailbox.

        Args:
            on_heartbeat: called after each heartbeat of the supervisor.
        """
        self._on_heartbeat = on_heartbeat
        self._mailbox = Mailbox()

    @ray.method(concurrency_group="control")
    def heartbeat(self) -> None:
        """Record that the supervisor is alive."""
        self._on_heartbeat()

    @ray.method(concurrency_group="control")
    def process(self) -> ProcessName:
        return ProcessName.of_this_process()

    @ray.method(concurrency_group="reports", enable_task_events=False)
    def poll(self, received: int, seconds: float) -> ReportBatch:
        """Return the reports that the supervisor has not received; the call is a heartbeat, too.

        The answer waits until there is an urgent report, for at most `seconds`. With 0 seconds, the
        method can be called in another concurrency group while a poll waits.

        Args:
            received: the number of reports that the supervisor has received.
        """
        self._on_heartbeat()
        self._mailbox.acknowledge(received)
        return self._mailbox.reports_since(received, seconds)
