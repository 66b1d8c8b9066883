"""Command, code and packages of a run's last start, in start.json.

No other part reads the file to decide anything; it documents the origin of a curve. It holds no
secrets: for a git checkout, it has only the commit and whether files differ from that commit. The
command is saved as the user typed it, but without credentials in paths and URLs.
"""

from contextlib import suppress
from typing import Annotated, Literal

from pydantic import Field

from data_pipeline.storage.durable import write_atomically
from data_pipeline.storage.regular_files import read_regular
from foundation.file_model import FileModel
from foundation.strict_json import SMALL, parse_object
from trainer.runs.folder import RunFolder

MAX_CHARACTERS = 4000  # maximum length of a command


class Code(FileModel):
    """State of a git checkout.

    Attributes:
        commit: the commit that is checked out.
        dirty: whether tracked files differ from the commit.
    """

    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{40,64}$")]
    dirty: bool

    def __str__(self) -> str:
        return f"commit {self.commit[:8]}{', with changes' if self.dirty else ''}"


class Invocation(FileModel):
    """Command that the user typed, and the state of its directory.

    Attributes:
        command: the command, or None if a user's program called transloom's functions.
        project: the checkout of the working directory, or None if it is not a git checkout.
    """

    command: Annotated[str, Field(max_length=MAX_CHARACTERS)] | None = None
    project: Code | None = None


class Start(FileModel):
    """Start of a run.

    Attributes:
        since: the time of the start, in UTC.
        invocation: the command and its directory.
        code: the checkout of transloom, or None if it is an installed package.
        versions: the versions of transloom and of the libraries that affect its results, by
            package.
    """

    version: Literal[1] = 1
    since: str
    invocation: Invocation
    code: Code | None
    versions: dict[str, str]


def write_start(run: RunFolder, start: Start) -> None:
    """Save a start of the run; only the run's owner may call it. A full disk causes no error."""
    with suppress(OSError):
        write_atomically(run.start, start.model_dump_json(indent=1) + "\n")


def read_start(run: RunFolder) -> Start | None:
    """Return the content that `write_start` saved, or None if it is missing or unreadable."""
    try:
        return Start.model_validate(parse_object(read_regular(run.start, SMALL.bytes)))
    except (OSError, ValueError):
        return None
