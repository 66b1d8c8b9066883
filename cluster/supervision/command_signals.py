"""Signal handlers of a command that trains, before its run handles signals and after its end.

Until the run has an outcome, the exit code is 75. Afterwards it is the code of the outcome, even if
a signal arrives. While the run trains, `stop_requests` handles signals. These handlers are for
commands, which own their process, so no code restores the former handlers.
"""

import os
import signal
from types import FrameType

from cluster.errors import EXIT_PREEMPTED

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def exit_on_signal_before_run() -> None:
    """Make signals end the process at once, until the run handles them.

    After the run has ended, it makes the process ignore these signals.
    """
    for number in SIGNALS:
        signal.signal(number, exit_immediately)


def exit_immediately(number: int, frame: FrameType | None) -> None:
    """Exit at once with the code for a preempted run, as there is nothing to save yet."""
    # Not an exception: a library that is being imported might catch it.
    name = signal.Signals(number).name
    os.write(2, f"{name} was received before the run began: the same command starts it\n".encode())
    os._exit(EXIT_PREEMPTED)


def ignore_signals() -> None:
    """Ignore signals during the remaining, short work of the process.

    A handler in Python is not enough: Python restores the default action, to terminate, during its
    shutdown. Only ignored signals stay ignored.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def restore_signal_handlers() -> None:
    """Restore Python's default handlers, so that work after the run can be interrupted."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
