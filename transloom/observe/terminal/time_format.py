"""Moments as a terminal shows them."""

import time
from datetime import datetime

from foundation.wording import span


def ago(seconds: float) -> str:
    """How long ago something was: to a tenth of a second at first."""
    return f"{max(0.0, seconds):.1f} s ago" if seconds < 60 else f"{span(seconds)} ago"


def clock(moment: str | float, now: float | None = None) -> str:
    """A moment by this machine's clock and zone; its date only if it is not today's.

    Args:
        moment: in ISO 8601, or seconds since the epoch.
    """
    try:
        if isinstance(moment, str):
            there = datetime.fromisoformat(moment).astimezone()
        else:
            there = datetime.fromtimestamp(moment).astimezone()
        today = datetime.fromtimestamp(time.time() if now is None else now).astimezone()
    except (ValueError, OverflowError, OSError):
        return str(moment)
    return there.strftime("%H:%M:%S" if there.date() == today.date() else "%Y-%m-%d %H:%M:%S")
