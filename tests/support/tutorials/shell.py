"""Run the commands of a tutorial in one shell, one after another, like a reader who pastes them.

The shell has an empty home directory and a separate user name. All processes of the commands
inherit a variable, `MARK`, by which they are found and ended.
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

from support.cluster.processes import marked
from support.pages import Step

MARK = "TRANSLOOM_TUTORIAL"
BIN = Path(sys.executable).parent
# A block runs in the shell itself, so that its variables, functions and background processes
# remain. The first block that fails ends the shell.
LOOP = """
for _block in "$TUTORIAL_BLOCKS"/*.sh; do
    export TUTORIAL_TEXTS="${_block%.sh}.texts"
    source "$_block" >"${_block%.sh}.out" 2>&1
    _code=$?
    echo $_code >"${_block%.sh}.code"
    [ $_code = 0 ] || break
done
"""


class Ran(NamedTuple):
    """Command with its exit code, its output, and its duration in seconds."""

    step: Step
    code: int
    output: str
    seconds: float


class TutorialShell:
    """Shell with a home directory; `processes` returns the processes that its commands started.

    Attributes:
        home: the reader's home directory.
        environment: variables of the shell.
    """

    def __init__(self, home: Path, more: Mapping[str, str] = {}) -> None:
        """more: additional variables of the shell."""
        self.home = home
        self._mark = secrets.token_hex(8)
        user = f"t{self._mark[:8]}"
        self._ray_folder = Path("/tmp") / f"tl-{user}"  # the folder of Ray that the tutorials use
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("RAY_", "TRANSLOOM_", "WANDB_"))
        }
        self.environment = {
            **kept,
            "HOME": str(home),
            "USER": user,
            "LOGNAME": user,
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            MARK: self._mark,
            **more,
        }

    def run(self, steps: Sequence[Step], texts: Sequence[Sequence[str]]) -> list[Ran]:
        """Run the commands up to the first that fails, and return their results.

        texts: texts that the output of each command must contain; a display ends when it has them.
        """
        folder = self.home / ".blocks"
        folder.mkdir()
        blocks = [folder / f"{number:02}.sh" for number in range(len(steps))]
        for block, step, contained in zip(blocks, steps, texts, strict=True):
            block.write_text(step.command, encoding="utf-8")
            block.with_suffix(".texts").write_text(json.dumps(contained), encoding="utf-8")
        started = time.time()
        subprocess.run(
            ["bash", "--noprofile", "--norc", "-c", LOOP],
            cwd=self.home,
            env={**self.environment, "TUTORIAL_BLOCKS": str(folder)},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            check=False,
        )
        found = []
        for block, step in zip(blocks, steps, strict=True):
            code = block.with_suffix(".code")
            if not code.exists():
                break
            ended = code.stat().st_mtime
            output = block.with_suffix(".out").read_text(encoding="utf-8", errors="replace")
            found.append(Ran(step, int(code.read_text()), output, ended - started))
            started = ended
        return found

    def processes(self) -> list[psutil.Process]:
        return marked(MARK, self._mark)

    def clean(self) -> None:
        """Kill all processes that the commands started, and remove Ray's folder."""
        while left := self.processes():
            for process in left:
                process.kill()
            psutil.wait_procs(left, timeout=1)
        shutil.rmtree(self._ray_folder, ignore_errors=True)


@contextmanager
def tutorial_shell(home: Path, more: Mapping[str, str] = {}) -> Iterator[TutorialShell]:
    """Yield a shell whose processes end with the context."""
    shell = TutorialShell(home, more)
    try:
        yield shell
    finally:
        shell.clean()
