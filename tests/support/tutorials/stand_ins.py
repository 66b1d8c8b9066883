"""Programs that replace commands of a tutorial that have effects outside the test, or take long.

`ray start` uses free ports, `ray stop` and `pgrep` see only the processes of the tutorial, and
`transloom watch`, which a reader ends by Ctrl-C, ends when the run has made some steps.

    ray start OPTION...                     ray stop
    pgrep [-a] [-o] -f PATTERN              transloom watch JOB
"""

import fcntl
import json
import os
import pty
import re
import struct
import sys
import termios
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from foundation.free_ports import free_port
from support.cluster.processes import command_of, marked
from support.cluster.ray_head import RayHead
from support.tutorials.shell import BIN, MARK

RAY_JOBS = "RAY_API_SERVER_ADDRESS"
STEPS = 30  # steps that a run makes while it is watched
SCREEN = struct.pack("HHHH", 50, 80, 0, 0)
CTRL_C = b"\x03"
STAND_IN = """#!/bin/bash
exec {python} {file} {name} "$@"
"""
# Replace this process by the command, so that it keeps the process id. Without Ray, a run of one
# rank starts in half the time.
TRANSLOOM = """#!/bin/bash
case "$*" in
watch*) exec {python} {file} {name} "$@" ;;
train*cluster.ranks=1*) exec {bin}/{name} "$@" --inline ;;
*) exec {bin}/{name} "$@" ;;
esac
"""


def install(folder: Path) -> dict[str, str]:
    """Write the programs into a folder, and return variables for a shell that uses them."""
    folder.mkdir()
    programs = dict.fromkeys(("ray", "pgrep"), STAND_IN) | {"transloom": TRANSLOOM}
    for name, script in programs.items():
        words = {"name": name, "python": sys.executable, "file": __file__, "bin": BIN}
        (folder / name).write_text(script.format(**words))
        (folder / name).chmod(0o700)
    return {
        "PATH": os.pathsep.join([str(folder), str(BIN), os.environ["PATH"]]),
        RAY_JOBS: f"http://127.0.0.1:{free_port()}",
    }


def main() -> int:
    match sys.argv[1:]:
        case ["ray", "start", *options]:
            return ray_start(options)
        case ["ray", "stop"]:
            return ray_stop()
        case ["pgrep", *arguments]:
            return pgrep(arguments)
        case ["transloom", "watch", job]:
            return watch(job)
    raise SystemExit(f"no stand-in for {sys.argv[1:]}")


def ray_start(options: list[str]) -> int:
    (folder,) = (
        Path(option.partition("=")[2]) for option in options if option.startswith("--temp-dir=")
    )
    token = (Path.home() / ".ray" / "auth_token").read_text()
    RayHead(
        folder.parent,
        cpus=4,  # as many as the commands need, even on a machine with fewer
        environment={"RAY_AUTH_TOKEN": token},
        options=options,
        dashboard_port=int(os.environ[RAY_JOBS].rpartition(":")[2]),
    )
    print("Ray runtime started.")
    return 0


def ray_stop() -> int:
    """Kill all processes of the tutorial except this one, its shell and their parents."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = [process for process in marked(MARK, os.environ[MARK]) if process.pid not in own]
    for process in found:
        process.kill()
    psutil.wait_procs(found)
    print(f"Stopped all {len(found)} Ray processes.")
    return 0


def pgrep(arguments: list[str]) -> int:
    *options, pattern = arguments
    letters = "".join(option.removeprefix("-") for option in options)
    assert {"f"} <= set(letters) <= set("aof"), arguments
    lines = [
        (process.pid, " ".join(command_of(process))) for process in marked(MARK, os.environ[MARK])
    ]
    found = [
        (pid, line) for pid, line in lines if re.search(pattern, line) and __file__ not in line
    ]
    for pid, line in found[:1] if "o" in letters else found:
        print(f"{pid} {line}" if "a" in letters else pid)
    return 0 if found else 1


def watch(job: str) -> int:
    """Show a job in a terminal, press Ctrl-C after some steps, and return the exit code.

    The display must have shown the texts of the file TUTORIAL_TEXTS before.
    """
    texts = json.loads(Path(os.environ["TUTORIAL_TEXTS"]).read_text(encoding="utf-8"))
    last = last_step()
    child, screen = pty.fork()
    if child == 0:
        os.execv(BIN / "transloom", ["transloom", "watch", job])
    fcntl.ioctl(screen, termios.TIOCSWINSZ, SCREEN)
    shown, pressed = b"", False
    while True:
        try:
            shown += os.read(screen, 65536)
        except OSError:  # the terminal is closed
            break
        seen = all(text.encode() in shown for text in texts)
        if not pressed and seen and last_step() >= last + STEPS:
            os.write(screen, CTRL_C)
            pressed = True
    sys.stdout.buffer.write(shown)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def last_step() -> int:
    """Return the last recorded step of the tutorial's only run; 0 if there is none."""
    recorded = b"".join(file.read_bytes() for file in Path("runs").glob("*/metrics.jsonl"))
    found = re.findall(rb'"step": (\d+),', recorded)
    return int(found[-1]) if found else 0


if __name__ == "__main__":
    sys.exit(main())
