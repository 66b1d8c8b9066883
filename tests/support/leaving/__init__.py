"""Command that receives SIGTERM and SIGINT at every stage of its shutdown.

site/sitecustomize.py sends the signals in the command's own process at each stage. When Python's
shutdown is done, the process ends at once: see `transloom.cli.exit_code`.
"""

import os
from pathlib import Path

HERE = Path(__file__).parent
# Stages in order. A command has those of `RAY` only if it trained under Ray.
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
    """Environment of such commands, and a log of the stages at which they received signals."""

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
