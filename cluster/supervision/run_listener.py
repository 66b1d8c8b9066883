"""Whoever watches a run: a live display, plain lines, or a test."""

from contextlib import AbstractContextManager
from typing import Protocol

from trainer.record.metrics_lines import Line
from trainer.runs.vitals import Vitals


class RunListener(Protocol):
    """Receives what the supervisor of a run tells."""

    def notice(self, text: str) -> None:
        """Tell of something that a person would want to know."""

    def logging(self) -> AbstractContextManager[object]:
        """Keep the run's log while the context lasts; entered by the run's owner only."""

    def log_detail(self, text: str) -> None:
        """Write a text to the run's log without showing it: details, or a long text."""

    def line(self, line: Line) -> None:
        """Take a line that the run has recorded."""

    def vitals(self, vitals: Vitals) -> None:
        """Take what the run's processes are doing; a thread of its own tells, now and then."""
