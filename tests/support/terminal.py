"""Terminal for commands that run in this process; it stores its input byte for byte."""

import os
import pty
import re
import threading
import tty

# Sequences that rich writes: colours, styles, cursor movements, erasure of lines.
RICH_SEQUENCES = re.compile(r"\x1b\[[0-9;]*m|\x1b\[\?25[hl]|\x1b\[[0-9]*A|\x1b\[2?K|\r")
_END = b"\0the end of what was written\0"


class Terminal:
    """Screen side of a terminal to which the program under test writes."""

    def __init__(self) -> None:
        self._screen, self.program_end = pty.openpty()
        tty.setraw(self.program_end)
        self._content = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        # Read until the end marker and not until end of file, because a process that the program
        # has left behind may still hold the terminal open.
        while not self._content.endswith(_END):
            self._content += os.read(self._screen, 65536)

    def written(self) -> str:
        """End the terminal, and return everything that was written to it."""
        os.write(self.program_end, _END)
        self._reader.join()
        os.close(self.program_end)
        os.close(self._screen)
        return self._content.removesuffix(_END).decode()


def without_richs_own(text: str) -> str:
    return RICH_SEQUENCES.sub("", text)
