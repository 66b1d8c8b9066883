"""start.json: what a run was started with last: the command, the code, the packages.

Nothing depends on it; it is for whoever wants to know later how a curve came about. It holds no
secrets: of a git checkout the commit and whether files differ from it, of a command what is typed,
whose locations carry no credentials.
"""

from contextlib import suppress
from typing import Annotated, Literal

from pydantic import Field

from data_pipeline.storage.durable import write_atomically
from data_pipeline.storage.regular_files import read_regular
from foundation.strict_json import SMALL, parse_object
from foundation.file_model import FileModel
from trainer.runs.folder import RunFolder

MAX_CHARACTERS = 4000  # of a command


class Code(FileModel):
    """The state of a git checkout.

    Attributes:
        commit: the one that is checked out.
        dirty: whether files that git knows differ from it.
    """

    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{40,64}$")]
    dirty: bool


class Invocation(FileModel):
    """What a user has typed, and where.

    Attributes:
        command: None if a program of the user's own has called transloom's functions.
        project: of the folder in which it was typed; None if that is no git checkout.
    """

    command: Annotated[str, Field(max_length=MAX_CHARACTERS)] | None = None
    project: Code | None = None


class Start(FileModel):
    """A start of a run.

    Attributes:
        since: when, in UTC.
        code: of transloom itself; None if it is installed and no checkout.
        versions: of transloom and of what it computes with, by package.
    """

    version: Literal[1] = 1
    since: str
    invocation: Invocation
    code: Code | None
    versions: dict[str, str]


def write_start(run: RunFolder, start: Start) -> None:
    """Keep what the run is started with; called by its owner. A full disk does not end the run."""
    with suppress(OSError):
        write_atomically(run.start, start.model_dump_json(indent=1) + "\n")


def read_start(run: RunFolder) -> Start | None:
    """What `write_start` has kept; None if there is nothing, or nothing that can be read."""
    try:
        return Start.model_validate(parse_object(read_regular(run.start, SMALL.bytes)))
    except (OSError, ValueError):
        return None
