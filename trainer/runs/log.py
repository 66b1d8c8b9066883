"""log.txt: what happened in a run, in words.

::

    2026-11-22T10:15:02.123+00:00 starting 2 ranks from the checkpoint of step 500
    2026-11-22T10:19:40.881+00:00 the run has ended: Rank 1 on node …
      a second line of the same entry stands in, so that none looks like another entry

The run's owner alone writes it (trainer/checkpoints/lease.py). Readers read only its end.
"""

import re
from datetime import datetime
from pathlib import Path

from data_pipeline.storage.regular_files import open_regular
from foundation.file_model import FileModel

ENDED = "the run has ended: "  # the first words of the entry of an error
DETAIL = "detail: "  # the first word of an entry that only readers of the file see
INTERRUPTED = "asked to stop a second time: ended at once"
TAIL_BYTES = 65536
SHOWN_CHARACTERS = 2_000
_ENTRY = re.compile(r"^(\d{4}-\d\d-\d\dT[\d:.]+\+00:00) (.*)$")


class LogEntry(FileModel):
    """An entry, with its later lines as far as a person reads them."""

    time: str
    text: str


def log_entry(text: str, now: datetime) -> str:
    """An entry as it is written.

    Args:
        text: fit to be seen.
        now: in UTC.
    """
    return f"{now.isoformat(timespec='milliseconds')} {indented(text)}\n"


def indented(text: str) -> str:
    """A text whose later lines stand in, so that none of them looks like another one's first."""
    return text.replace("\n", "\n  ")


def last_entries(log: Path) -> list[LogEntry]:
    """Return the entries at the end of a log without details, oldest first; none without a log.

    Raises:
        OSError: there is something, and it cannot be read.
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
        elif entries and line.startswith("  "):  # else it is of an entry that begins before
            entries[-1][1].append(line[2:])
    return [
        LogEntry(time=at, text="\n".join(text)[:SHOWN_CHARACTERS])
        for at, text in entries
        if not text[0].startswith(DETAIL)
    ]
