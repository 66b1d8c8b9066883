"""Reports of a rank reach its supervisor through its actor's mailbox or by direct calls."""

import threading
from types import SimpleNamespace

import pytest
from support.cluster.processes import HANG_SECONDS
from support.records.checkpoints import make_header
from support.records.lines import train_line

from cluster.health.hang_detector import Position
from cluster.ranks.reports import (
    Detail,
    Mailbox,
    Notice,
    ReceivedReports,
    RecordedLine,
    ReportBatch,
    StateFailed,
    StateWritten,
)
from cluster.supervision.inline import InlineSupervision
from run_store.checkpoints.state_file import FileRecord
from run_store.record.log import DETAIL

FILE = FileRecord(name="state-00000-of-00001.safetensors", bytes=1, sha256="a")
HEADER = make_header(7)
LINE = train_line(5)


def test_reports_are_kept_in_order_until_they_are_acknowledged():
    mailbox = Mailbox()
    mailbox.progress("save", 7, "window 3")
    mailbox.progress("start", 0)
    mailbox.line(LINE)
    mailbox.notice("a shard is damaged")
    mailbox.log_detail("8 threads")
    mailbox.state_written(FILE, HEADER)
    mailbox.state_failed(9, "the disk is full")
    batch = mailbox.reports_since(0)
    assert (batch.first, batch.end) == (0, 7)
    expected = [
        Position("save", 7, "window 3"),
        Position("start", 0, ""),
        RecordedLine(LINE),
        Notice("a shard is damaged"),
        Detail("8 threads"),
        StateWritten(FILE, HEADER),
        StateFailed(9, "the disk is full"),
    ]
    assert [report for _, report in batch.reports] == expected
    assert mailbox.reports_since(0).reports == batch.reports
    mailbox.acknowledge(2)
    assert mailbox.reports_since(0).first == 2
    assert mailbox.reports_since(0).reports == batch.reports[2:]
    mailbox.acknowledge(99)
    assert mailbox.reports_since(0).reports == []
    mailbox.notice("the next one")
    assert mailbox.reports_since(99).first == 99
    assert (mailbox.reports_since(7).first, mailbox.reports_since(7).end) == (7, 8)


def test_reports_that_arrive_twice_are_accepted_once_with_their_time():
    received = ReceivedReports()
    one, two, three = (Notice(text) for text in ("one", "two", "three"))
    batch = ReportBatch(0, [(5.0, one), (6.0, two)], sent_at=8.0)
    assert received.accept(batch, 100.0) == [(97.0, one), (98.0, two)]
    assert received.accept(batch, 101.0) == []
    batch = ReportBatch(1, [(6.0, two), (7.0, three)], 9.0)
    assert received.accept(batch, 103.0) == [(101.0, three)]
    assert received.end == 3
    with pytest.raises(AssertionError):
        received.accept(ReportBatch(4, [], 9.0), 104.0)


def test_reports_keep_their_order_if_a_batch_arrives_late():
    received = ReceivedReports()
    one, two = Notice("one"), Notice("two")
    assert received.accept(ReportBatch(0, [(5.0, one)], sent_at=5.1), 9.0) == [(8.9, one)]
    assert received.accept(ReportBatch(1, [(5.2, two)], sent_at=6.0), 9.0) == [(8.9, two)]


def test_a_waiting_poll_ends_with_an_urgent_report():
    mailbox = Mailbox()
    batches: list[ReportBatch] = []
    waiting = threading.Thread(target=lambda: batches.append(mailbox.reports_since(1, 600.0)))
    mailbox.notice("received")
    mailbox.acknowledge(1)
    waiting.start()
    mailbox.progress("step", 1)
    mailbox.log_detail("8 threads")
    waiting.join(0.3)
    assert waiting.is_alive()
    assert len(mailbox.reports_since(1).reports) == 2  # a poll without a timeout returns at once
    mailbox.state_failed(9, "the disk is full")
    waiting.join(HANG_SECONDS)
    (batch,) = batches
    assert [report for _, report in batch.reports] == [
        Position("step", 1),
        Detail("8 threads"),
        StateFailed(9, "the disk is full"),
    ]


@pytest.mark.parametrize("urgent", [True, False])
def test_a_poll_returns_pending_reports_at_once_only_if_one_is_urgent(urgent):
    mailbox = Mailbox()
    mailbox.progress("step", 1)
    if urgent:
        mailbox.line(LINE)
    mailbox.progress("step", 2)
    assert len(mailbox.reports_since(0, 0.0).reports) == 2 + urgent
    poll = threading.Thread(target=mailbox.reports_since, args=(0, 3600.0))
    poll.start()
    poll.join(HANG_SECONDS if urgent else 0.3)
    assert poll.is_alive() != urgent
    mailbox.line(LINE)
    poll.join(HANG_SECONDS)


def test_a_stop_request_stays_in_the_mailbox():
    mailbox = Mailbox()
    assert not mailbox.stop_requested()
    mailbox.request_stop()
    mailbox.acknowledge(1)
    assert mailbox.stop_requested()


@pytest.fixture
def inline():
    """Return a supervision in the rank's process, the list of its calls, and the stop request."""
    calls = []

    def noting(*names):
        def note(name):
            return lambda *arguments: calls.append((name, *arguments))

        return SimpleNamespace(**{name: note(name) for name in names})

    stop = SimpleNamespace(reason=None)
    committer = noting("add", "give_up")
    committer.take_published = list
    supervision = InlineSupervision(
        committer,
        noting("line", "notice", "log_detail"),
        noting("rank_moved", "checkpoint_begins", "checkpoint_ends"),
        stop,
    )
    return supervision, calls, stop


def test_without_ray_each_report_becomes_a_call(inline):
    supervision, calls, _ = inline
    supervision.progress("step", 7, "window 3")
    supervision.progress("save", 8)
    supervision.line(LINE)
    supervision.notice("a shard is damaged")
    supervision.log_detail("8 threads")
    supervision.state_written(FILE, HEADER)
    supervision.state_failed(9, "the disk is full")
    assert calls == [
        ("rank_moved", 0, Position("step", 7, "window 3")),
        ("rank_moved", 0, Position("save", 8, "")),
        ("checkpoint_begins", 8),
        ("line", LINE),
        ("notice", "a shard is damaged"),
        ("log_detail", f"{DETAIL}8 threads"),
        ("add", FILE, HEADER),
        ("checkpoint_ends", 7),
        ("give_up", 9),
        ("checkpoint_ends", 9),
        ("notice", "the disk is full"),
    ]


def test_without_ray_a_rank_polls_for_stop_requests(inline):
    supervision, _, stop = inline
    assert not supervision.stop_requested()
    stop.reason = "SIGTERM was received"
    assert supervision.stop_requested()
