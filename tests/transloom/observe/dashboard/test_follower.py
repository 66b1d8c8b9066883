"""The follower sends each line of a record once, after the position that a page has read."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.records.lines import train_line

from transloom.observe.dashboard.follower import Follower

HANG_SECONDS = 30.0


class Table:
    def __init__(self, run):
        self.paths = {"run": run}

    def refresh(self):
        return []

    def trains(self, run):
        return True


class Pages:
    """A number of subscribed pages, and the steps that they have received."""

    def __init__(self, number=0):
        self.number = number
        self.steps = []
        self.received = asyncio.Event()

    def __len__(self):
        return self.number

    def publish(self, kind, message):
        if kind == "steps":
            self.steps += message.columns["step"]
            self.received.set()


@pytest.fixture
def record(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.touch()
    return path


def append(record, *steps):
    """Append lines of steps, and return the size of the record."""
    with record.open("a") as file:
        for step in steps:
            file.write(train_line(step, step_seconds=0.01).to_json() + "\n")
    return record.stat().st_size


def followed(record, script):
    """Run a script with a follower and its pages, and return the steps that were published."""

    async def follow():
        pages = Pages()
        pages.pool = ThreadPoolExecutor(1)
        asyncio.get_running_loop().set_default_executor(pages.pool)
        follower = Follower(Table(record.parent), pages)
        await script(follower, pages)
        await follower.close()
        return pages.steps

    return asyncio.run(follow())


def test_a_page_gets_the_lines_after_its_newest_answer(record):
    async def script(follower, pages):
        follower.expect("run", record, append(record, 1))
        follower.expect("run", record, append(record, 2, 3))  # the page is reloaded
        append(record, 4)
        pages.number = 1
        follower.wake()
        await asyncio.wait_for(pages.received.wait(), HANG_SECONDS)

    assert followed(record, script) == [4]


def test_an_answer_to_a_new_page_skips_no_lines_for_subscribed_pages(record):
    async def script(follower, pages):
        follower.expect("run", record, append(record, 1))
        pages.number = 1
        end = append(record, 2)
        follower.expect("run", record, end)
        follower.wake()
        await asyncio.wait_for(pages.received.wait(), HANG_SECONDS)

    assert followed(record, script) == [2]


def test_a_page_that_subscribes_again_does_not_get_lines_twice(record):
    async def script(follower, pages):
        for step in (1, 2):
            follower.expect("run", record, append(record, 10 * step))
            pages.number = 1
            append(record, 10 * step + 1)
            pages.received.clear()
            follower.wake()
            await asyncio.wait_for(pages.received.wait(), HANG_SECONDS)
            pages.number = 0

    assert followed(record, script) == [11, 21]


def test_lines_appended_while_no_page_is_subscribed_are_not_sent_later(record, monkeypatch):
    """A new page gets these lines in the response to its request."""
    monkeypatch.setattr("transloom.observe.dashboard.follower.ROWS_SECONDS", 0.05)

    async def script(follower, pages):
        for step in (1, 2):
            pages.number = 1
            follower.wake()
            while "run" not in follower._tails or not follower._tails["run"].due:
                await asyncio.sleep(0.01)
            append(record, 10 * step)
            await asyncio.wait_for(pages.received.wait(), HANG_SECONDS)
            pages.number = 0
            pages.received.clear()
            while follower._wakes.is_set():
                await asyncio.sleep(0.01)
            append(record, 10 * step + 1)

    assert followed(record, script) == [10, 20]


def test_lines_appended_before_the_followers_first_read_are_sent(record):
    async def script(follower, pages):
        position, may_read = append(record, 1), threading.Event()

        def refresh_and_keep_reads_waiting():
            pages.pool.submit(may_read.wait)
            return []

        follower._table.refresh = refresh_and_keep_reads_waiting
        pages.number = 1
        follower.wake()
        while "run" not in follower._tails:
            await asyncio.sleep(0.01)
        follower.expect("run", record, position)
        append(record, 2)
        may_read.set()
        await asyncio.wait_for(pages.received.wait(), HANG_SECONDS)

    assert followed(record, script) == [2]


def test_the_follower_continues_after_an_error(record, caplog):
    async def script(follower, pages):
        publish = pages.publish

        def fail_for_curves(kind, message):
            assert kind != "curves", "no page for them"
            publish(kind, message)

        pages.publish = fail_for_curves
        follower.expect("run", record, append(record, 1, 2))
        pages.number = 1
        follower.wake()
        append(record, 3)
        await asyncio.wait_for(pages.received.wait(), HANG_SECONDS)
        pages.received.clear()
        record.write_text("")
        while "no page for them" not in caplog.text:
            await asyncio.sleep(0.05)
        append(record, 4)
        await asyncio.wait_for(pages.received.wait(), HANG_SECONDS)

    assert followed(record, script) == [3, 4]
