"""Command, job, code and packages of a run's last start, a part of its status.

No decision depends on these facts; they document the origin of a curve. They hold no secrets: for a
git checkout, only the commit and whether files differ from that commit. The command is saved as the
user typed it, but without credentials in paths and URLs.
"""

import time
from datetime import UTC, datetime
from typing import Annotated

from pydantic import Field

from foundation.file_model import FileModel

MAX_CHARACTERS = 4000  # maximum length of a command
# Pattern of owners' names: no markup, and no first character that a spreadsheet takes for a
# formula.
OWNER = r"^[A-Za-z0-9_][A-Za-z0-9_.@+ -]{0,99}$"
MAX_PRIORITY, DEFAULT_PRIORITY = 100, 50
MAX_WEIGHT = 1000.0
MAX_SECONDS = 1e11  # seconds since the epoch; the year 5138
STOPPED_AT = " stopped the run at "  # part of a stop order's text, by which listeners recognize it


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


class Claim(FileModel):
    """Claim of a run to a share of a cluster.

    Attributes:
        owner: the person who submitted the run, such as user@host.
        priority: runs with a higher priority get ranks first.
        tags: `tracking.tags` of the recipe.
        weight: weight of the owner's share; if the owner has several jobs, the largest weight is
            used.
        fixed: whether the run keeps its ranks when other runs need ranks.
    """

    owner: Annotated[str, Field(pattern=OWNER)] = "unknown"
    priority: Annotated[int, Field(ge=0, le=MAX_PRIORITY)] = DEFAULT_PRIORITY
    tags: Annotated[tuple[Annotated[str, Field(max_length=64)], ...], Field(max_length=100)] = ()
    weight: Annotated[float, Field(gt=0, le=MAX_WEIGHT)] = 1.0
    fixed: bool = False


class StopOrder(FileModel):
    """Request of a person to stop a run.

    Attributes:
        by: the person, as in `Claim.owner`.
        at: the time, in seconds since the epoch.
    """

    by: Annotated[str, Field(pattern=OWNER)]
    at: Annotated[float, Field(ge=0, le=MAX_SECONDS)] = Field(default_factory=time.time)

    @property
    def text(self) -> str:
        """Clause that says who stopped the run, and when."""
        moment = datetime.fromtimestamp(self.at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        return f"{self.by}{STOPPED_AT}{moment}"


class Start(FileModel):
    """Start of a run.

    Attributes:
        since: the time of the start, in UTC.
        invocation: the command and its directory.
        job: the id of the job on a cluster, or None.
        claim: the run's owner and priority, or None.
        code: the checkout of transloom, or None if it is an installed package.
        versions: the versions of transloom and of the libraries that affect its results, by
            package.
    """

    since: str
    invocation: Invocation
    job: Annotated[str, Field(max_length=MAX_CHARACTERS)] | None = None
    claim: Claim | None = None
    code: Code | None
    versions: dict[str, str]
