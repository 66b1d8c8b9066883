"""Format times for a terminal."""

from datetime import datetime

from foundation.wording import span


def ago(seconds: float) -> str:
    """Return an age as text; an age below a minute has tenths of a second."""
    return f"{max(0.0, seconds):.1f} s ago" if seconds < 60 else f"{span(seconds)} ago"


def clock(moment: str | float, *, has_date: bool = False) -> str:
    """Return a time in this machine's time zone.

    Args:
        moment: the time in ISO 8601, or in seconds since the epoch.
        has_date: include the date of today, too. Another date is always included.
    """
    try:
        if isinstance(moment, str):
            there = datetime.fromisoformat(moment).astimezone()
        else:
            there = datetime.fromtimestamp(moment).astimezone()
    except (ValueError, OverflowError, OSError):
        return str(moment)
    is_today = there.date() == datetime.now().date()
    return there.strftime("%H:%M:%S" if is_today and not has_date else "%Y-%m-%d %H:%M:%S")
