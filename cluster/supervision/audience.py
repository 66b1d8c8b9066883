"""Whoever watches a run: a live display, plain lines, or a test."""

from typing import Protocol

from trainer.tracking.records import Line


class Audience(Protocol):
    """What the supervisor of a run tells."""

    def notice(self, text: str) -> None:
        """Something happened that a person would want to know."""

    def keep(self, text: str) -> None:
        """Something to be looked up in the run's log, too long to be shown."""

    def line(self, line: Line) -> None:
        """The run has recorded a line."""
