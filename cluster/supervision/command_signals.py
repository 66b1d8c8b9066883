"""What signals do to a command that trains, before its run listens to them and after it has ended.

A signal never changes the meaning of the exit code: it is 75 until the run has an outcome, then the
outcome's. While the run trains, `stop_requests` listens. These handlers are for commands, which own
their process; nothing puts the former ones back.
"""

import os
import signal
from types import FrameType

from cluster.errors import EXIT_PREEMPTED

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def exit_on_signal_before_run() -> None:
    """Until the run listens, let a signal end the process at once; after it, ignore signals."""
    for number in SIGNALS:
        signal.signal(number, exit_immediately)


def exit_immediately(number: int, frame: FrameType | None) -> None:
    """The handler before a run: nothing has begun, so there is nothing to save or to put right."""
    # Not an exception: a library that is being imported might catch it.
    name = signal.Signals(number).name
    os.write(2, f"{name} was received before the run began: the same command starts it\n".encode())
    os._exit(EXIT_PREEMPTED)


def ignore_signals() -> None:
    """Ignore signals until the process is gone; what there is left to do takes a moment.

    A handler of our own would not do: Python replaces it by the default, to die, when it shuts
    down. Only ignored signals stay ignored.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def restore_signal_handlers() -> None:
    """Restore Python's own handling: what comes after the run may be interrupted."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
