"""Read lines that another process appends: each line is whole and read once."""

import os
from io import BytesIO

import pytest

from run_store.record import line_reader
from run_store.record.line_reader import (
    LineTail,
    last_line_end,
    lines_backwards,
    ranges_of,
    whole_lines,
)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "metrics.jsonl"


@pytest.fixture
def tail(file):
    return LineTail(file, tail_bytes=2**18)


def text(*steps):
    return "".join(f'{{"step": {step:04}}}\n' for step in steps)


LINE_BYTES = len(text(1))


def steps(new):
    return [int(line[-5:-1]) for line in new.content.split(b"\n")[:-1]]


def append(file, content):
    with file.open("a") as opened:
        opened.write(content)


def replace(file, content):
    other = file.with_name("other")
    other.write_text(content)
    other.replace(file)


# --- appended lines


def test_each_line_is_read_once(file, tail):
    assert steps(tail.read()) == []  # the file does not exist yet
    file.write_text(text(1, 2))
    assert steps(tail.read()) == [1, 2]
    assert steps(tail.read()) == []
    append(file, text(3))
    new = tail.read()
    assert steps(new) == [3]
    assert new.position == 2 * LINE_BYTES


def test_only_appended_bytes_are_read(file, tail, monkeypatch):
    file.write_text(text(*range(1, 500)))
    tail.read()
    append(file, text(500))
    read = []
    ranges = line_reader.ranges_of

    def counting(opened):
        return lambda start, stop: read.append(ranges(opened)(start, stop)) or read[-1]

    monkeypatch.setattr(line_reader, "ranges_of", counting)
    assert steps(tail.read()) == [500]
    # One extra byte, the previous line end, is read to detect changes of earlier lines.
    assert b"".join(read).decode() == "\n" + text(500)


def test_an_incomplete_line_is_read_when_its_end_is_written(file, tail):
    file.write_text(text(1) + text(2)[:5])
    assert steps(tail.read()) == [1]
    append(file, text(2)[5:-1])
    assert steps(tail.read()) == []
    append(file, "\n")
    assert steps(tail.read()) == [2]


@pytest.mark.parametrize("position", [None, 0, LINE_BYTES])
def test_a_torn_line_that_the_next_start_replaces_is_read(file, position):
    tail = LineTail(file, position)
    file.write_text(text(1) + text(2)[:5])
    assert steps(tail.read()) == ([1] if position == 0 else [])
    os.truncate(file, LINE_BYTES)
    append(file, text(2))
    new = tail.read()
    assert steps(new) == [2]
    assert not new.is_other


@pytest.mark.parametrize(
    ("tail_bytes", "found"), [(0, []), (1, [1]), (LINE_BYTES, [1]), (2**18, [1])]
)
def test_a_truncated_file_is_read_as_another_file(file, tail_bytes, found):
    tail = LineTail(file, tail_bytes=tail_bytes)
    file.write_text(text(1, 2, 3))
    tail.read()
    os.truncate(file, LINE_BYTES)
    new = tail.read()
    assert new.is_other
    assert steps(new) == found
    append(file, text(2))
    new = tail.read()
    assert not new.is_other
    assert steps(new) == [2]


def test_a_file_truncated_and_grown_beyond_its_old_size_is_another_file(file, tail):
    file.write_text(text(1, 2, 3))
    tail.read()
    os.truncate(file, LINE_BYTES)
    append(file, "a longer line\n" + text(*range(4, 9)))
    new = tail.read()
    assert new.is_other
    assert new.content.decode() == file.read_text()


def test_a_replaced_file_is_read_as_another_file(file, tail):
    file.write_text(text(1, 2))
    tail.read()
    replace(file, text(7, 8, 9))
    new = tail.read()
    assert new.is_other
    assert steps(new) == [7, 8, 9]


def test_a_file_shorter_than_the_given_position_is_another_file(file):
    file.write_text(text(1))
    new = LineTail(file, 2 * LINE_BYTES).read()
    assert new.is_other
    assert steps(new) == []


def test_reading_continues_after_a_file_was_absent_for_a_moment(file, tail):
    file.write_text(text(1))
    tail.read()
    away = file.rename(file.with_name("away"))
    assert steps(tail.read()) == []
    away.rename(file)
    append(file, text(2))
    new = tail.read()
    assert steps(new) == [2]
    assert not new.is_other


def test_a_file_recreated_after_a_rename_is_another_file(file, tail):
    file.write_text(text(1, 2))
    tail.read()
    file.rename(file.with_name("kept"))
    assert not tail.read().is_other
    file.write_text(text(1, 2, 3))
    new = tail.read()
    assert new.is_other
    assert steps(new) == [1, 2, 3]


@pytest.mark.parametrize("position", [None, LINE_BYTES])
def test_a_file_that_appears_later_is_read_from_its_first_line(file, position):
    tail = LineTail(file, position)
    assert steps(tail.read()) == []
    file.write_text(text(1, 2))
    new = tail.read()
    assert steps(new) == [1, 2]
    assert not new.is_other


def test_a_line_longer_than_the_limit_is_skipped_up_to_its_end(file):
    tail = LineTail(file, 0, read_bytes=500, longest_line_bytes=1000)
    file.write_text("x" * 2500)
    assert [tail.read().has_long_line for _ in range(3)] == [True, True, False]
    append(file, "\n" + text(1))
    new = tail.read()
    assert steps(new) == [1]
    assert new.position == 2501


def test_a_line_longer_than_one_read_is_complete(file):
    file.write_text("x" * 900 + "\n" + text(1))
    tail = LineTail(file, 0, read_bytes=LINE_BYTES, longest_line_bytes=1000)
    assert tail.read().content == b"x" * 900 + b"\n" + text(1).encode()[:99]
    append(file, text(2, 3))
    assert [steps(tail.read()) for _ in range(3)] == [[2], [3], []]


def test_many_lines_are_read_in_parts_of_limited_size(file):
    file.write_text(text(*range(1, 1001)))
    tail, found = LineTail(file, 0, read_bytes=10 * LINE_BYTES), []
    while new := steps(tail.read()):
        assert len(new) == 10
        found += new
    assert found == list(range(1, 1001))


@pytest.mark.parametrize("tail_bytes", [3 * LINE_BYTES, 3 * LINE_BYTES - 5])
def test_the_first_read_of_a_long_file_returns_its_last_lines(file, tail_bytes):
    file.write_text(text(*range(1, 200)))
    assert steps(LineTail(file, tail_bytes=tail_bytes).read()) == [197, 198, 199]


@pytest.mark.parametrize("ending", ["", text(200)[:5]])
def test_a_reader_without_tail_bytes_reads_only_lines_appended_later(file, ending):
    file.write_text(text(*range(1, 200)) + ending)
    tail = LineTail(file)
    assert steps(tail.read()) == []
    append(file, text(200)[len(ending) :])
    assert steps(tail.read()) == [200]


def test_a_tail_that_starts_in_an_overlong_line_skips_the_line(file):
    file.write_text("x" * 5000)
    tail = LineTail(file, read_bytes=500, longest_line_bytes=1000)
    assert tail.read().content == b""
    append(file, "x\n" + text(1))
    assert steps(tail.read()) == [1]


def test_a_folder_in_place_of_the_file_is_an_error(file, tail):
    file.mkdir()
    with pytest.raises(OSError, match="folder"):
        tail.read()


# --- reading backwards, and ranges


@pytest.mark.parametrize("block_bytes", [1, 3, 65536])
@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b"torn", []),
        (b"\n", [(0, b"")]),
        (b"one\n", [(0, b"one")]),
        (b"one\n\nthree\nto", [(5, b"three"), (4, b""), (0, b"one")]),
        ("é\u2028x\n2\n".encode(), [(7, b"2"), (0, "é\u2028x".encode())]),
    ],
)
def test_lines_are_read_backwards_from_the_end(monkeypatch, block_bytes, content, lines):
    monkeypatch.setattr(line_reader, "BLOCK_BYTES", block_bytes)
    read = ranges_of(BytesIO(content))
    assert list(lines_backwards(read, len(content))) == lines
    end = sum(len(line) + 1 for _, line in lines)
    assert last_line_end(read, len(content)) == end


def test_the_search_for_the_last_line_end_is_limited_in_bytes(monkeypatch):
    monkeypatch.setattr(line_reader, "BLOCK_BYTES", 3)
    read = ranges_of(BytesIO(b"1\n" + b"x" * 10))
    assert last_line_end(read, 12, most_bytes=10) is None
    assert last_line_end(read, 12, most_bytes=11) == 2
    assert last_line_end(read, 1, most_bytes=11) == 0


@pytest.mark.parametrize(
    ("start", "stop", "found"),
    [
        (0, 8, (0, b"one\ntwo\n")),
        (0, 7, (0, b"one\n")),
        (3, 8, (4, b"two\n")),
        (4, 8, (8, b"")),
        (1, 3, (3, b"")),
        (0, 3, (0, b"")),
        (4, 99, (8, b"")),
    ],
)
def test_whole_lines_returns_the_complete_lines_of_a_range(start, stop, found):
    assert whole_lines(ranges_of(BytesIO(b"one\ntwo\nthr")), start, stop) == found
