"""A real terminal for commands that run in this process: what reached it, byte for byte."""

import os
import pty
import re
import threading
import tty

# What rich writes by itself: colours and styles, the cursor up and away, lines erased.
RICH_SEQUENCES = re.compile(r"\x1b\[[0-9;]*m|\x1b\[\?25[hl]|\x1b\[[0-9]*A|\x1b\[2?K|\r")
_END = b"\0the end of what was written\0"


class Terminal:
    """The screen's side of a terminal that the program under test writes to."""

    def __init__(self) -> None:
        self._screen, self.program_end = pty.openpty()
        tty.setraw(self.program_end)
        self._content = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        # Wait until no process has it open: a process that the program has left behind may.
        while not self._content.endswith(_END):
            self._content += os.read(self._screen, 65536)

    def written(self) -> str:
        """Everything that was written; nothing more can be."""
        os.write(self.program_end, _END)
        self._reader.join()
        os.close(self.program_end)
        os.close(self._screen)
        return self._content.removesuffix(_END).decode()


def without_richs_own(text: str) -> str:
    return RICH_SEQUENCES.sub("", text)
