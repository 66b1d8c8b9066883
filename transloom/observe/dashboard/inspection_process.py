"""The process that trains some steps again to record them: `transloom replay`, of low priority.

It ends with the server that has started it, however that ends: its standard input is the server's,
and ends with it.
"""

import sys


def inspection_command(command_line: str) -> tuple[str, ...]:
    """Return the command `transloom`, with the lowest priority and the server's lifetime.

    Args:
        command_line: the module whose `main` it calls.
    """
    # -P: a folder `cluster` in the current folder is not ours.
    return (
        *(sys.executable, "-P", "-c"),
        "from foundation.child_process import enter_background; enter_background(); "
        f"from {command_line} import main; main()",
    )
