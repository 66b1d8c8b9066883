"""Signal handlers of a command that trains, for the time before and after its run handles signals.

A signal that arrives before the run has an outcome leads to exit code 75. Afterwards the exit code
is that of the outcome, even if a signal arrives. While the run trains, `stop_requests` handles
signals. These handlers are for commands, which own their process, so no code restores the former
handlers.
"""

import os
import signal
from types import FrameType

from cluster.errors import EXIT_PREEMPTED

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def exit_on_signal_before_run() -> None:
    """Make signals end the process immediately, until the run handles signals.

    When the run ends, it makes the process ignore these signals.
    """
    for number in SIGNALS:
        signal.signal(number, exit_immediately)


def exit_immediately(number: int, frame: FrameType | None) -> None:
    """Exit immediately with the code for a preempted run, as there is nothing to save yet."""
    # Raise no exception: a library that is being imported might catch it.
    name = signal.Signals(number).name
    text = f"{name} was received before the run began. Run the same command again to start it\n"
    os.write(2, text.encode())
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
