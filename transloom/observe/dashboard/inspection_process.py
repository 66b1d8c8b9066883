"""Process that trains some steps again to inspect them: `transloom replay`, with low priority.

It ends with the server that started it, even if the server is killed: the server holds the other
end of its standard input.
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
