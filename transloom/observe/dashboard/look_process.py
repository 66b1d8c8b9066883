"""The process that trains some steps anew to look at them: `transloom replay`, of low priority.

It ends with the server that has started it, however that ends: its standard input is the server's,
and ends with it.
"""

import io
import os
import signal
import sys
import threading

LOWEST_PRIORITY = 19


def look_command(command_line: str) -> tuple[str, ...]:
    """Return the command `transloom`, with the lowest priority and the server's lifetime.

    Args:
        command_line: the module whose `main` it calls.
    """
    # -P: a folder `cluster` in the current folder is not ours.
    return (
        *(sys.executable, "-P", "-c"),
        f"from {__name__} import end_with_the_server; end_with_the_server(); "
        f"from {command_line} import main; main()",
    )


def end_with_the_server() -> None:
    """Take the lowest priority, and end when the standard input does."""
    os.nice(LOWEST_PRIORITY)
    owner = io.FileIO(os.dup(sys.stdin.fileno()))
    threading.Thread(target=_end_with, args=(owner,), daemon=True).start()


def _end_with(owner: io.FileIO) -> None:
    """End this process and all of its group when its owner ends."""
    owner.read()
    os.killpg(os.getpgrp(), signal.SIGKILL)
