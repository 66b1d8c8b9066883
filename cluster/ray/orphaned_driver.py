"""Keep a driver alive when its raylet dies after the driver's parent has ended.

Ray's client library ends the process on the first failed call to a raylet that it considers dead.
It checks the process of RAY_RAYLET_PID, which Ray sets for its workers. Without the variable, as in
a driver, it checks the parent process, and considers process 1 dead. A driver has process 1 as
parent after `nohup transloom train &` and a logout, under systemd, or as the command of a
container. Such a driver would end silently instead of starting another Ray. Seen in Ray 2.60.0; see
docs/decisions/0094.
"""

import os

VARIABLE = "RAY_RAYLET_PID"
ALWAYS_ALIVE = "1"


def outlive_raylet() -> None:
    """Keep the loss of a raylet from ending this process. Call this before Ray is imported.

    Ray's worker processes get their own value of the variable from their raylet. A value that
    exists already is kept: in a Ray job it identifies the raylet of the job's node.
    """
    os.environ.setdefault(VARIABLE, ALWAYS_ALIVE)
