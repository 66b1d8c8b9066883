"""Settings of notifications: their targets, events and thresholds.

A recipe is stored in run folders, checkpoints and W&B, and may come from another person. So it
contains no command, which would be code, and no address, which may be a secret. It names
environment variables that have the commands; see docs/decisions/0101-notifications.md.
"""

import re
from typing import Any, Literal

from pydantic import field_validator, model_validator

from foundation.section import REQUIRED, Section, execution
from foundation.wording import counted
from run_store.record.notify_event import EVENTS, NotifyEvent

# All events except best_score, because an improving run has a new best score at each validation.
DEFAULT_EVENTS = tuple(event for event in EVENTS if event != "best_score")
MAX_TARGETS = 8  # few, because each target has a thread
# The prefix keeps another person's recipe from using a variable such as SHELL or AWS_….
_VARIABLE = re.compile(r"TRANSLOOM_[A-Z0-9_]{1,100}")


class NotifyTarget(Section):
    """Recipient of notifications: a program on the driver's host."""

    command_from: str = execution(
        REQUIRED,
        "Name of the environment variable of the driver that has the command as a JSON list, whose "
        "first item is an absolute path: [/usr/local/bin/page, --team, ml]. No shell reads it.",
    )
    format: Literal["json", "text"] = execution(
        "json",
        "What the command reads from its standard input: json has all fields, text is two lines "
        "for a person.",
    )

    @model_validator(mode="before")
    @classmethod
    def _is_a_command(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.keys() & {"kind", "url_from"}:
            raise ValueError(
                "kind and url_from were removed, because every target is a command: write "
                "{command_from: VARIABLE, format: text}. The program apprise reaches Slack, Teams, "
                "mail and other services; docs/how-to/notifications.md has the commands"
            )
        return values

    @field_validator("command_from", mode="before")
    @classmethod
    def _is_a_variable(cls, name: Any) -> Any:
        if not (isinstance(name, str) and _VARIABLE.fullmatch(name)):
            raise ValueError(
                "expected the name of an environment variable that begins with TRANSLOOM_, such as "
                "TRANSLOOM_NOTIFY, in capital letters, digits and underscores. The value is not "
                "shown, because it may be a secret: put it into such a variable"
            )
        return name


class NotifyConfig(Section):
    """Notifications that the driver of a run sends; see docs/how-to/notifications.md."""

    targets: tuple[NotifyTarget, ...] = execution(
        (),
        "Recipients of the notifications, at most 8. `transloom notify RECIPE` sends a test "
        "message to each.",
    )
    events: tuple[NotifyEvent, ...] = execution(
        DEFAULT_EVENTS,
        f"Events of which the targets are notified: {', '.join(EVENTS)}. Default: all except "
        "best_score.",
    )
    stalled_minutes: float = execution(
        15.0,
        "Minutes without a step after which a run is stalled. Choose more than the longest "
        "validation takes.",
        gt=0,
    )

    @field_validator("targets")
    @classmethod
    def _are_few_and_differ(cls, targets: tuple[NotifyTarget, ...]) -> tuple[NotifyTarget, ...]:
        if len(targets) > MAX_TARGETS:
            raise ValueError(
                f"there are {counted(len(targets), 'target')}, at most {MAX_TARGETS} are allowed: "
                "remove some"
            )
        if len(set(targets)) < len(targets):
            raise ValueError("a target is repeated: give each target once")
        return targets

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the environment variables that the driver reads."""
        return tuple(dict.fromkeys(target.command_from for target in self.targets))
