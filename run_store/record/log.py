"""Log of a run, log.txt: its events as text.

::

    2026-11-22T10:15:02.123+00:00 starting 2 ranks from the checkpoint of step 500
    2026-11-22T10:19:40.881+00:00 the run has ended: Rank 1 on node …
      later lines of an entry are indented, so that none looks like another entry

Only the run's owner writes it (run_store/lease.py). Readers read only its end.
"""

import re
from datetime import datetime
from pathlib import Path

from data_pipeline.storage.regular_files import open_regular
from foundation.file_model import FileModel

ENDED = "the run has ended: "  # prefix of the entry with the error that ended the run
DETAIL = "detail: "  # prefix of an entry that is never displayed
INTERRUPTED = "asked to stop a second time: ended at once"
TAIL_BYTES = 65536
SHOWN_CHARACTERS = 2_000
_ENTRY = re.compile(r"^(\d{4}-\d\d-\d\dT[\d:.]+\+00:00) (.*)$")


class LogEntry(FileModel):
    """Entry of a log; its text is cut to `SHOWN_CHARACTERS`."""

    time: str
    text: str


def log_entry(text: str, now: datetime) -> str:
    """Format an entry for the file.

    Args:
        text: the text, without control characters.
        now: the time in UTC.
    """
    return f"{now.isoformat(timespec='milliseconds')} {indented(text)}\n"


def indented(text: str) -> str:
    """Indent the later lines of a text, so that none looks like the first line of an entry."""
    return text.replace("\n", "\n  ")


def last_entries(log: Path) -> list[LogEntry]:
    """Return the entries in the last `TAIL_BYTES` of a log, oldest first, except details.

    Returns:
        The entries that do not begin with `DETAIL`; none if there is no log.

    Raises:
        OSError: the log exists and cannot be read.
    """
    try:
        with open_regular(log) as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL_BYTES))
            lines = file.read(TAIL_BYTES).decode(errors="replace").split("\n")
    except FileNotFoundError:
        return []
    entries: list[tuple[str, list[str]]] = []
    for line in lines:
        if found := _ENTRY.match(line):
            entries.append((found[1], [found[2]]))
        elif entries and line.startswith("  "):  # otherwise, the entry begins before the tail
            entries[-1][1].append(line[2:])
    return [
        LogEntry(time=at, text="\n".join(text)[:SHOWN_CHARACTERS])
        for at, text in entries
        if not text[0].startswith(DETAIL)
    ]
