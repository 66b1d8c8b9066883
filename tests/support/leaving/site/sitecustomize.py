"""Send this process SIGTERM and SIGINT at every stage of its shutdown, and log the stage.

Python imports this module at the start of every process that has its folder on PYTHONPATH. The
module acts only in the process that ends a run with an outcome. It uses only the standard library,
because every process of Ray imports it.
"""

import atexit
import functools
import os
import signal
import sys
import threading
from pathlib import Path


class Here:
    """State of this process: whether it shuts down, and the stages at which it got signals."""

    leaves = False
    stages = ()


def strike(stage, here=Here, system=os, numbers=(signal.SIGTERM, signal.SIGINT)):
    """Send the signals once per stage.

    Default values bind the names in use, because modules may have been cleared before a call.
    """
    if not here.leaves or stage in here.stages:
        return
    here.stages += (stage,)
    how = system.O_WRONLY | system.O_APPEND | system.O_CREAT
    file = system.open(system.environ["TRANSLOOM_LEAVING_LOG"], how, 0o600)
    system.write(file, f"{stage}\n".encode())
    system.close(file)
    for number in numbers:
        system.kill(system.getpid(), number)


class Remains:
    """Object that is deleted when the interpreter clears modules, after all handlers are reset."""

    def __del__(self, strike=strike):
        strike("modules are cleared")


def strikes(before=None, after=None):
    """Wrap a function whose beginning or end is a stage."""

    def wrap(function):
        @functools.wraps(function)
        def wrapper(*arguments, **options):
            if before:
                strike(before)
            result = function(*arguments, **options)
            if after:
                strike(after)
            return result

        return wrapper

    return wrap


def arms(ignore_requests):
    """Start to send signals; called again when the process stops listening for requests."""

    @functools.wraps(ignore_requests)
    def wrapper(stop):
        ignore_requests(stop)
        if Here.leaves:
            return
        Here.leaves = True
        atexit.register(strike, "first hook at exit")
        threading._shutdown = strikes("shuts down")(threading._shutdown)
        sys.modules["remains"] = Remains()
        strike("outcome stands")

    return wrapper


HOOKS = {
    "cluster.supervision.stop_requests": {
        "StopRequests.ignore_requests": arms,
        "StopRequests.__exit__": strikes(after="listens no more"),
    },
    "ray._private.worker": {"disconnect": strikes("disconnects", "has disconnected")},
    "ray._private.node": {
        "Node.kill_all_processes": strikes("ends Ray's processes", "has ended Ray's processes")
    },
    "run_store.lease": {"Lease.__exit__": strikes("gives the run back")},
    "transloom.cli.train_run": {"train_run": strikes(after="has trained")},
    "transloom.cli.train": {"answer": strikes("answers", "has answered")},
}


if "TRANSLOOM_LEAVING_LOG" in os.environ:
    atexit.register(strike, "last hook at exit")
    sys.path.append(str(Path(__file__).parents[2] / "module_hooks"))
    from module_hooks import Finder

    sys.meta_path.insert(0, Finder(HOOKS))
