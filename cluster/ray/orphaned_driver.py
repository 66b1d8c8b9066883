"""Keep a driver alive when its raylet dies, though the driver's parent has ended.

Ray's client library ends the process on the first failed call to a raylet that it takes for dead.
It asks for the process in RAY_RAYLET_PID, which Ray sets for its workers. Without the variable, as
in a driver, it asks whether the parent process is alive, and takes process 1 for a dead one. A
driver has process 1 as parent after `nohup transloom train &` and a logout, under systemd, or in a
container whose command it is. It would end without a word instead of starting another Ray. Seen in
Ray 2.60.0; see docs/decisions/0094.
"""

import os

VARIABLE = "RAY_RAYLET_PID"
ALWAYS_ALIVE = "1"


def outlive_raylet() -> None:
    """Let no lost raylet end this process. Call it before Ray is imported.

    Ray's own processes get another value from their raylet. A value that is set already stays: a
    job of Ray has its node's raylet.
    """
    os.environ.setdefault(VARIABLE, ALWAYS_ALIVE)
