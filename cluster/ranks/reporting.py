"""Methods of an actor that reports to its supervisor, such as a rank. They do not import torch."""

from collections.abc import Callable

import ray

from cluster.ranks.agent_link import AgentAddress, AgentLink
from cluster.ranks.node_processes import ProcessName
from cluster.ranks.reports import Mailbox, ReportBatch


class ReportingMethods:
    """Methods of an actor with a mailbox, which the supervisor or the node's agent empties.

    The actor has a concurrency group `control`.
    """

    def __init__(self, on_heartbeat: Callable[[], None]) -> None:
        """Create the mailbox.

        Args:
            on_heartbeat: called after each heartbeat of the supervisor.
        """
        self._on_heartbeat = on_heartbeat
        self._mailbox = Mailbox()
        self._link = AgentLink(self._mailbox, on_heartbeat)

    @ray.method(concurrency_group="control")
    def heartbeat(self) -> None:
        """Record that the supervisor is alive."""
        self._on_heartbeat()

    @ray.method(concurrency_group="control")
    def process(self) -> ProcessName:
        return ProcessName.of_this_process()

    @ray.method(concurrency_group="control")
    def poll(self, received: int) -> ReportBatch:
        """Return the reports that the supervisor has not received.

        Args:
            received: the number of reports that the supervisor has received.
        """
        self._mailbox.acknowledge(received)
        return self._mailbox.reports_since(received)

    @ray.method(concurrency_group="control")
    def link(self, address: AgentAddress) -> bool:
        """Send reports to the agent of this node, too; return whether it can be reached."""
        return self._link.connect(address)
