"""Times are shown in the local time zone, which is UTC+5:45 in these tests."""

from datetime import datetime

import pytest

from transloom.observe.terminal import time_format
from transloom.observe.terminal.time_format import ago, clock


class Noon(datetime):
    """A clock that always shows noon of 2 January."""

    @classmethod
    def now(cls, tz=None):
        return cls(2026, 1, 2, 12, tzinfo=tz)


@pytest.mark.parametrize(
    ("moment", "shown"),
    [
        ("2026-01-02T18:14:59+00:00", "23:59:59"),
        ("2026-01-02T18:15:00+00:00", "2026-01-03 00:00:00"),  # tomorrow
        ("2026-01-01T18:15:00+00:00", "00:00:00"),  # today, although yesterday in UTC
        ("2026-01-01T18:14:59+00:00", "2026-01-01 23:59:59"),
        (1_767_291_300, "00:00:00"),
        ("soon", "soon"),
        (1e300, "1e+300"),
    ],
)
def test_a_local_time_has_a_date_only_if_it_is_not_today(moment, shown, monkeypatch):
    monkeypatch.setattr(time_format, "datetime", Noon)
    assert clock(moment) == shown


def test_todays_date_is_shown_on_request(monkeypatch):
    monkeypatch.setattr(time_format, "datetime", Noon)
    assert clock("2026-01-02T00:15:00+00:00", has_date=True) == "2026-01-02 06:00:00"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(-1, "0.0 s ago"), (59.94, "59.9 s ago"), (60, "1 min ago")]
)
def test_ago_shows_seconds_or_minutes(seconds, shown):
    assert ago(seconds) == shown
