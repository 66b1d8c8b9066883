"""Command, job, code and packages of a run's last start, a part of its status.

Nothing decides by them; they document the origin of a curve. They hold no secrets: for a git
checkout, only the commit and whether files differ from that commit. The command is saved as the
user typed it, but without credentials in paths and URLs.
"""

from typing import Annotated

from pydantic import Field

from foundation.file_model import FileModel

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
        job: the id of the job on a cluster, or None.
        code: the checkout of transloom, or None if it is an installed package.
        versions: the versions of transloom and of the libraries that affect its results, by
            package.
    """

    since: str
    invocation: Invocation
    job: Annotated[str, Field(max_length=MAX_CHARACTERS)] | None = None
    code: Code | None
    versions: dict[str, str]
