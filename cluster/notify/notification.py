"""Notification: the message about one event of a run, as JSON or as text."""

import secrets
import shlex
import socket
from datetime import UTC, datetime
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from cluster.supervision.invocation import current_claim
from foundation.file_model import Count, FileModel
from foundation.location import without_credentials
from foundation.untrusted_text import visible_in_json, visible_line
from run_store.folder import RunFolder
from run_store.record.notify_event import NotifyEvent
from run_store.start import DEFAULT_PRIORITY

MAX_CHARACTERS = 1_000  # maximum length of a text, which may quote a library's long message


class NotifiedScore(FileModel):
    """Score that a notification reports."""

    name: str
    value: float


class RunEvent(NamedTuple):
    """Event of a run, which becomes a notification.

    Attributes:
        text: description in one paragraph.
        ended: whether the run has ended with the event.
    """

    event: NotifyEvent | Literal["test"]
    text: str
    step: int | None = None
    score: NotifiedScore | None = None
    ended: bool = False


class Notification(FileModel):
    """Message about one event of a run; a command receives it as JSON or as text.

    Attributes:
        id: random identifier. A message that is sent again after a failure has the same one.
        event: an event of `tracking.notify.events`, or `test`.
        run: the name of the run's folder.
        folder: the absolute path of the run's folder.
        step: the step of the event, or None.
        max_steps: `trainer.max_steps`.
        score: the score of the event, or None.
        text: description in one paragraph, without control characters.
        owner: the person who submitted or started the run.
        priority: the priority of the run's job; 50 without a job.
        host: the host of the driver.
        time: the time of the event in UTC, in ISO format.
        command: the command that shows more.
    """

    version: Literal[1] = 1
    id: str
    event: NotifyEvent | Literal["test"]
    run: str
    folder: str
    step: Count | None = None
    max_steps: Count
    score: NotifiedScore | None = None
    text: Annotated[str, Field(max_length=MAX_CHARACTERS)]
    owner: str = ""
    priority: Count = DEFAULT_PRIORITY
    host: str
    time: str
    command: str

    @classmethod
    def of(cls, event: RunEvent, run: RunFolder, max_steps: int) -> "Notification":
        """Return the notification of an event that happens now."""
        folder, claim = str(run.path.absolute()), current_claim()
        shown = "status" if event.ended else "watch"
        return cls(
            id=secrets.token_hex(8),
            event=event.event,
            run=clean(run.path.name),
            folder=clean(folder),
            step=event.step,
            max_steps=max_steps,
            score=event.score,
            text=clean(event.text),
            owner=claim.owner,
            priority=claim.priority,
            host=clean(socket.gethostname()),
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            command=clean(shlex.join(["transloom", shown, folder])),
        )

    def to_json(self) -> bytes:
        """Return the notification as JSON."""
        return visible_in_json(self.model_dump_json()).encode()

    def to_text(self) -> bytes:
        """Return the notification as two lines for a person."""
        moment = datetime.fromisoformat(self.time).strftime("%Y-%m-%d %H:%M UTC")
        return f"{self.text}\n{self.host}, {self.owner}, {moment}: {self.command}".encode()


def clean(text: str) -> str:
    """Return a text of any origin in one line, without credentials and control characters."""
    line = " ".join(part for part in without_credentials(text).split("\n") if part.strip())
    line = visible_line(line)
    return line if len(line) <= MAX_CHARACTERS else f"{line[: MAX_CHARACTERS - 1]}…"
