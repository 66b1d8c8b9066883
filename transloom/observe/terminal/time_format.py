"""Format times for a terminal."""

import time
from datetime import datetime

from foundation.wording import span


def ago(seconds: float) -> str:
    """Return an age as text; an age below a minute has tenths of a second."""
    return f"{max(0.0, seconds):.1f} s ago" if seconds < 60 else f"{span(seconds)} ago"


def clock(moment: str | float, now: float | None = None) -> str:
    """Return a time in this machine's time zone; include the date only if it is not today's.

    Args:
        moment: the time in ISO 8601, or in seconds since the epoch.
        now: the current time in seconds since the epoch; None reads the clock.
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
