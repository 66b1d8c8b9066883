"""Programs that replace commands of a tutorial which would reach beyond the test.

`ray start` runs on free ports, `ray stop` and `pgrep` know only the processes of the tutorial, and
`transloom watch`, which a reader ends by Ctrl-C, is ended when the run has made some steps.

    python stand_ins.py ray-start FOLDER OPTION...      prints commands for the shell
    python stand_ins.py ray-stop
    python stand_ins.py pgrep [-a] [-o] -f PATTERN
    python stand_ins.py watch RUN|JOB                   in a terminal
"""

import fcntl
import os
import pty
import re
import struct
import sys
import termios
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from support.cluster.processes import command_of
from support.tutorials.shell import BIN, MARK, marked

# Functions of the shell; `{python}` and `{file}` are replaced.
FUNCTIONS = """
_stand_in() {{ "{python}" "{file}" "$@"; }}
ray() {{
    case "$1" in
    start) local _said && _said=$(_stand_in ray-start "${{@:2}}") && eval "$_said" ;;
    stop) _stand_in ray-stop ;;
    *) return 2 ;;
    esac
}}
pgrep() {{ _stand_in pgrep "$@"; }}
sleep() {{ command sleep 0.05; }}
transloom() {{
    if [ "$1" = watch ]; then _stand_in watch "${{@:2}}"; else command transloom "$@"; fi
}}
""".format(python=sys.executable, file=__file__)
STEPS = int(os.environ.get("WATCH_STEPS", 30))  # that a run makes while it is watched
SCREEN = struct.pack("HHHH", 50, 120, 0, 0)
CTRL_C = b"\x03"


def main() -> int:
    what, *arguments = sys.argv[1:]
    match what:
        case "ray-start":
            return ray_start(arguments)
        case "ray-stop":
            return ray_stop()
        case "pgrep":
            return pgrep(arguments)
        case "watch":
            return watch(*arguments)
    return 2


def ray_start(options: list[str]) -> int:
    from support.cluster.ray_head import RayHead

    (folder,) = (
        Path(option.partition("=")[2]) for option in options if option.startswith("--temp-dir=")
    )
    token = (Path.home() / ".ray" / "auth_token").read_text()
    # More CPUs than the commands need, whatever the machine has.
    head = RayHead(folder.parent, cpus=4, options=options, token=token)
    print(f"export RAY_API_SERVER_ADDRESS={head.dashboard}; echo Ray runtime started.")
    return 0


def ray_stop() -> int:
    """Kill all processes of the tutorial but this one, its shell and their parents."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = [process for process in marked(os.environ[MARK]) if process.pid not in own]
    for process in found:
        process.kill()
    psutil.wait_procs(found)
    print(f"Stopped all {len(found)} Ray processes.")
    return 0


def pgrep(arguments: list[str]) -> int:
    *options, pattern = arguments
    letters = "".join(option.removeprefix("-") for option in options)
    assert set(letters) <= set("aof") and "f" in letters, arguments
    lines = [(process.pid, " ".join(command_of(process))) for process in marked(os.environ[MARK])]
    found = [(pid, line) for pid, line in lines if re.search(pattern, line) and __file__ not in line]
    for pid, line in found[:1] if "o" in letters else found:
        print(f"{pid} {line}" if "a" in letters else pid)
    return 0 if found else 1


def watch(what: str) -> int:
    """Show a run in a terminal, press Ctrl-C after some steps, and return the exit code."""
    last = last_step()
    child, screen = pty.fork()
    if child == 0:
        os.execv(BIN / "transloom", ["transloom", "watch", what])
    fcntl.ioctl(screen, termios.TIOCSWINSZ, SCREEN)
    pressed = False
    while True:
        try:
            shown = os.read(screen, 65536)
        except OSError:  # the terminal is closed
            break
        sys.stdout.buffer.write(shown)
        if not pressed and last_step() >= last + STEPS:
            os.write(screen, CTRL_C)
            pressed = True
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def last_step() -> int:
    """Return the last recorded step of the tutorial's one run; 0 if there is none."""
    recorded = b"".join(file.read_bytes() for file in Path("runs").glob("*/metrics.jsonl"))
    found = re.findall(rb'"step": (\d+),', recorded)
    return int(found[-1]) if found else 0


if __name__ == "__main__":
    sys.exit(main())
