"""A command that is sent SIGTERM and SIGINT at every stage of its leaving.

::

    site/sitecustomize.py   sends them, in the command's own process, when it comes to a stage
    end.c                   the last stage: Python is gone, and the process nearly
"""

import os
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
# In the order in which a command comes to them; those of Ray if it trained under Ray.
OUTCOME = ["outcome stands"]
RAY = ["disconnects", "has disconnected", "ends Ray's processes", "has ended Ray's processes"]
LAST = [
    "gives the run back",
    "listens no more",
    "has trained",
    "answers",
    "has answered",
    "shuts down",
    "first hook at exit",
    "last hook at exit",
    "modules are cleared",
    "the process ends",
]


class Leaving:
    """The environment of such commands, and the stages at which one was struck."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "stages"
        self._library = folder / "end.so"
        command = ["cc", "-std=gnu11", "-shared", "-fPIC", "-o", self._library, HERE / "end.c"]
        subprocess.run(command, check=True)

    @property
    def environment(self) -> dict[str, str]:
        path = [str(HERE / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path),
            "LD_PRELOAD": str(self._library),
            "TRANSLOOM_LEAVING_LOG": str(self._log),
        }

    @property
    def stages(self) -> list[str]:
        return self._log.read_text().splitlines() if self._log.exists() else []
