"""Listener of a run: a live display, plain lines, or a test."""

from contextlib import AbstractContextManager
from typing import Protocol

from run_store.record.metrics_lines import Line
from run_store.record.vitals import Vitals

# Listeners recognize the notice about an excluded node by these words at its end.
NODE_EXCLUDED = "The run does not use this node in this session"


class RunListener(Protocol):
    """Receiver of the notices, lines and vitals of a supervised run."""

    def notice(self, text: str) -> None:
        """Report an event that users should know about."""

    def logging(self) -> AbstractContextManager[object]:
        """Keep the run's log while the context lasts; entered by the run's owner only."""

    def log_detail(self, text: str) -> None:
        """Write a text to the run's log without showing it, for details and long texts."""

    def line(self, line: Line) -> None:
        """Receive a line that the run has recorded."""

    def vitals(self, vitals: Vitals) -> None:
        """Receive the activity of the run's processes, periodically, from a separate thread."""
