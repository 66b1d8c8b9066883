"""Times in a terminal: those of this machine's zone, which is 5:45 h before UTC in these tests."""

from datetime import datetime

import pytest

from transloom.observe.terminal import time_format
from transloom.observe.terminal.time_format import ago, clock


class Noon(datetime):
    """Of 2 January in Kathmandu."""

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
def test_a_time_is_that_of_the_zone_with_its_date_if_it_is_not_today(moment, shown, monkeypatch):
    monkeypatch.setattr(time_format, "datetime", Noon)
    assert clock(moment) == shown


def test_the_date_of_today_on_request(monkeypatch):
    monkeypatch.setattr(time_format, "datetime", Noon)
    assert clock("2026-01-02T00:15:00+00:00", has_date=True) == "2026-01-02 06:00:00"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(-1, "0.0 s ago"), (59.94, "59.9 s ago"), (60, "1 min ago")]
)
def test_an_age(seconds, shown):
    assert ago(seconds) == shown
