"""The new lines of a record: each once, whatever happens to the file."""

import os

import pytest
from support.records.lines import train_line, validation_line

from trainer.record import record_follower
from trainer.record.record_follower import RecordFollower


@pytest.fixture
def record(tmp_path):
    return tmp_path / "metrics.jsonl"


@pytest.fixture
def follower(record):
    return RecordFollower(record, tail_bytes=2**18)


def text(*steps):
    return "".join(train_line(step).to_json() + "\n" for step in steps)


def steps(found):
    return [line.step for line in found.lines]


def append(record, content):
    with record.open("a") as file:
        file.write(content)


def test_each_line_is_read_once(record, follower):
    assert steps(follower.look()) == []  # there is no record yet
    record.write_text(text(1, 2))
    assert steps(follower.look()) == [1, 2]
    assert steps(follower.look()) == []
    append(record, text(3) + validation_line(3).to_json() + "\n")
    assert steps(follower.look()) == [3, 3]


def test_only_what_was_appended_is_read(record, follower, monkeypatch):
    record.write_text(text(*range(1, 500)))
    follower.look()
    read = []
    opened = record_follower.open_regular

    def counting(path):
        file = opened(path)

        class Counting:
            fileno, seek = file.fileno, file.seek

            def read(self, size):
                read.append(file.read(size))
                return read[-1]

            def __enter__(self):
                return self

            def __exit__(self, *_):
                file.close()

        return Counting()

    monkeypatch.setattr(record_follower, "open_regular", counting)
    append(record, text(500))
    assert steps(follower.look()) == [500]
    assert [data.decode() for data in read] == [text(500)]


def test_a_line_that_is_being_written_waits(record, follower):
    line = text(2)
    record.write_text(text(1) + line[:30])
    assert steps(follower.look()) == [1]
    append(record, line[30:-1])
    assert steps(follower.look()) == []
    append(record, "\n")
    assert steps(follower.look()) == [2]


def test_a_torn_line_that_the_next_start_cuts_is_not_missed(record, follower):
    record.write_text(text(1) + text(2)[:30])
    follower.look()
    os.truncate(record, len(text(1)))
    append(record, text(2))
    found = follower.look()
    assert steps(found) == [2]
    assert not found.begins_anew


def test_a_record_that_shrinks_begins_anew(record, follower):
    record.write_text(text(1, 2, 3))
    follower.look()
    os.truncate(record, len(text(1)))
    found = follower.look()
    assert found.begins_anew
    assert steps(found) == [1]


def test_a_record_that_is_replaced_begins_anew(record, follower):
    record.write_text(text(1, 2))
    follower.look()
    other = record.with_name("other")
    other.write_text(text(7, 8, 9))
    other.replace(record)
    found = follower.look()
    assert found.begins_anew
    assert steps(found) == [7, 8, 9]


def test_a_record_that_is_away_for_a_moment_goes_on(record, follower):
    record.write_text(text(1))
    follower.look()
    away = record.rename(record.with_name("away"))
    assert steps(follower.look()) == []
    away.rename(record)
    append(record, text(2))
    assert steps(follower.look()) == [2]


def test_lines_that_are_none_are_counted_and_left_out(record, follower):
    record.write_bytes(text(1).encode() + b'\xff\xfe\n{"kind": "train"}\n[]\n' + text(2).encode())
    found = follower.look()
    assert steps(found) == [1, 2]
    assert found.unreadable == 3


def test_a_line_without_an_end_is_not_read_for_ever(record, monkeypatch):
    monkeypatch.setattr(record_follower, "BYTES_OF_A_LOOK", 1000)
    follower = RecordFollower(record, tail_bytes=2**18)
    record.write_text("x" * 2500)
    assert [follower.look().unreadable for _ in range(3)] == [1, 1, 0]
    append(record, "\n" + text(1))
    assert steps(follower.look()) == [1]


def test_the_first_look_at_a_long_record_takes_its_end(record):
    record.write_text(text(*range(1, 200)))
    found = RecordFollower(record, tail_bytes=3 * len(text(199))).look()
    assert steps(found)[-1] == 199
    assert 1 <= len(found.lines) <= 3
    assert found.unreadable == 0


def test_a_record_that_is_no_file_is_an_error(record, follower):
    record.mkdir()
    with pytest.raises(OSError, match="folder"):
        follower.look()
