"""A command that is sent SIGTERM and SIGINT at every stage of its leaving.

site/sitecustomize.py sends them, in the command's own process, when it comes to a stage. Once
Python is done, the process is gone: see `transloom.cli.exit_code`.
"""

import os
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
]


class Leaving:
    """The environment of such commands, and the stages at which one was struck."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "stages"

    @property
    def environment(self) -> dict[str, str]:
        path = [str(HERE / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path),
            "TRANSLOOM_LEAVING_LOG": str(self._log),
        }

    @property
    def stages(self) -> list[str]:
        return self._log.read_text().splitlines() if self._log.exists() else []
