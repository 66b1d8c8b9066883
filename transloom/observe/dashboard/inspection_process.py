"""Process that trains some steps again to inspect them: `transloom replay`, at the lowest priority.

The process ends when its standard input is closed. The server that starts it holds the other end,
so the process ends with the server, even if the server is killed.
"""

import sys


def inspection_command(command_line: str) -> tuple[str, ...]:
    """Return the command line that runs `transloom` at the lowest priority, until the server ends.

    Args:
        command_line: the module whose `main` function is the command `transloom`.
    """
    # -P: do not import a package of the current folder that is also called `cluster`.
    return (
        *(sys.executable, "-P", "-c"),
        "from foundation.child_process import enter_background; enter_background(); "
        f"from {command_line} import main; main()",
    )
