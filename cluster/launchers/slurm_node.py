"""Task of a Slurm step: a Ray node that runs until the job's script closes the task's input.

::

    script ─── stdin ───▶ all tasks      a line: HOST:PORT of the head; end of input: stop
    script ◀── stdout ─── each task      a line when its node is up: the head sends its HOST:PORT,
                                         other nodes their host names

Slurm copies the script's output to all tasks. The first task of the step is the head.
"""

import os
import socket
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import IO

from cluster.errors import ClusterError
from cluster.ray.authentication import enable_authentication
from cluster.ray.started_node import NodeSettings, StartedNode
from foundation.untrusted_text import logger_of

NODE_NUMBER = "SLURM_NODEID"

logger = logger_of(__name__)


def serve_node(settings: NodeSettings, commands: IO[str], tell: Callable[[str], None]) -> None:
    """Start this task's Ray node, report that it is up, and end it when the script's input ends.

    If a node other than the head ends earlier, the run continues without this node, or reports
    which resources it lacks. All other errors end the task with a nonzero exit code. Slurm then
    ends all tasks of the step (--kill-on-bad-exit).

    Args:
        commands: input from the script.
        tell: called with the line for the script when the node is up.

    Raises:
        ClusterError: the node did not start, or the head ended before the script's input.
    """
    enable_authentication(create_token=False)
    is_head = os.environ.get(NODE_NUMBER, "0") == "0"
    head = None if is_head else commands.readline().strip()
    if head == "":
        return  # the job has ended before its head started
    node = StartedNode(settings, head)
    try:
        tell(node.head if is_head else socket.gethostname())
        if not _wait_for_stop(node, commands):
            news = (
                f"Ray has ended on {socket.gethostname()} before the job ended. The last output of "
                f"Ray is: {node.last_output}"
            )
            if is_head:
                raise ClusterError(news)
            logger.warning(news)
    finally:
        node.end()


def _wait_for_stop(node: StartedNode, commands: IO[str]) -> bool:
    """Return True when the input from the script ends, or False if the node ends first."""
    events: SimpleQueue[bool] = SimpleQueue()

    def read_on() -> None:
        for _ in commands:
            pass
        events.put(True)

    Thread(target=read_on, daemon=True).start()
    node.on_exit(lambda: events.put(False))
    return events.get()
