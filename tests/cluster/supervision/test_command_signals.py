"""Effects of signals before and after a run, in a process that a signal may end."""

import signal

import pytest
from support.command import run_python

from cluster.errors import EXIT_PREEMPTED
from cluster.supervision.command_signals import SIGNALS, restore_signal_handlers

PROGRAM = """
import os, signal, sys
from cluster.supervision import command_signals
getattr(command_signals, sys.argv[1])()
try:
    for number in map(int, sys.argv[2:]):
        os.kill(os.getpid(), number)
except KeyboardInterrupt:
    sys.exit(9)
"""


def after(handling, *numbers):
    return run_python(PROGRAM, handling, *map(int, numbers))


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_before_the_run_ends_the_process_as_preempted_with_a_message(number):
    done = after("exit_on_signal_before_run", number)
    assert done.returncode == EXIT_PREEMPTED
    assert done.stderr == (
        f"{number.name} was received before the run began. Run the same command again to start it\n"
    )
    assert done.stdout == ""


def test_signals_after_the_run_do_not_change_the_exit_code():
    assert after("ignore_signals", *SIGNALS).returncode == 0


def test_restored_signal_handlers_are_python_s_defaults():
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        restore_signal_handlers()
        found = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
        assert found == [signal.SIG_DFL, signal.default_int_handler]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
