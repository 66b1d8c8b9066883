"""Curves by seeking and from the cache, against parsing the whole record; bytes are counted."""

import json
import math
import os
from collections import deque
from itertools import pairwise

import numpy as np
import pytest
from support.records.lines import SPIKE_FIELDS, skipped_line, train_line, validation_line
from support.records.long_records import damaged, long_record

from trainer.errors import TrainerError
from trainer.record.metrics_file import read_metrics
from trainer.record.metrics_lines import TrainLine, ValidationLine
from transloom.observe.curves import curve_index, curves
from transloom.observe.curves.curve_index import extend_index
from transloom.observe.curves.curve_points import COLUMNS, MEANS, OF_THE_LAST, Points
from transloom.observe.curves.curves import read_curves
from transloom.observe.curves.record_blocks import OpenRecord

STEPS = 9_000
SPIKE_STEP = 4_321
BYTES_OF_PLACES = 150_000  # what it may cost to find places, and both ends


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """One of some 5 MB, with a spike, and torn at its end."""
    path = tmp_path_factory.mktemp("long") / "metrics.jsonl"
    long_record(path, STEPS, spikes=(SPIKE_STEP,))
    with path.open("a") as file:
        file.write('{"version": 2, "step": 9001, "epo')
    return path


@pytest.fixture(scope="module")
def some_text(record):
    """The first 1,200 steps and more, torn."""
    return record.read_bytes()[:700_000]


@pytest.fixture(scope="module")
def lines(record):
    return read_metrics(record)


@pytest.fixture(scope="module")
def cache(record, tmp_path_factory):
    folder = tmp_path_factory.mktemp("home") / "curves"
    extend_index(record, folder)
    return folder


def steps_between(lines, first, last):
    return [line for line in lines if isinstance(line, TrainLine) and first <= line.step <= last]


def marks(curves):
    return [scored.step for scored in curves.validations], [line.step for line in curves.events]


def rare(lines, first, last):
    within = [line for line in lines if first <= line.step <= last]
    validated = [line.step for line in within if isinstance(line, ValidationLine)]
    return validated, [x.step for x in within if not isinstance(x, ValidationLine | TrainLine)]


def assert_stands_for(columns, at, lines):
    """A point has the values of exactly these lines."""
    assert columns["step"][at] == lines[-1].step
    for name in OF_THE_LAST:
        assert columns[name][at] == getattr(lines[-1], name)
    for name in MEANS:
        values = [getattr(line, name) for line in lines]
        if None in values:
            assert columns[name][at] is None
            continue
        mean = math.fsum(values) / len(lines)
        assert columns[name][at] == pytest.approx(mean, rel=1e-12)
    assert columns["loss_min"][at] == min(line.loss for line in lines)
    assert columns["loss_max"][at] == max(line.loss for line in lines)
    assert columns["grad_norm_max"][at] == max(line.grad_norm for line in lines)


def assert_all_stand_for(columns, lines):
    """The points stand for all of these lines, each for those after the point before."""
    rest = deque(lines)
    for at, step in enumerate(columns["step"]):
        own = []
        while rest and rest[0].step <= step:
            own.append(rest.popleft())
        assert_stands_for(columns, at, own)
    assert not rest


@pytest.mark.parametrize("kept", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize(("first", "last"), [(1, 300), (5_990, 6_010), (8_900, 9_000), (7, 7)])
def test_a_short_range_is_read_step_by_step(record, lines, cache, first, last, kept):
    found = read_curves(record, 2_000, first, last, cache if kept else None)
    expected = steps_between(lines, first, last)
    assert not found.thinned
    assert found.complete
    assert set(found.columns) == set(COLUMNS)
    assert found.columns["step"] == [line.step for line in expected]
    for at, line in enumerate(expected):
        assert_stands_for(found.columns, at, [line])
    assert marks(found) == rare(lines, first, last)
    assert found.bytes_read < sum(len(x.to_json()) + 1 for x in expected) + BYTES_OF_PLACES


def test_a_long_record_is_sampled_at_even_distances(record, lines):
    found = read_curves(record, 2_000)
    assert found.thinned
    assert not found.complete
    assert found.steps_recorded == STEPS
    assert found.bytes_read < 3_800_000 < 4_800_000 < record.stat().st_size
    steps = found.columns["step"]
    assert 1_000 < len(steps) <= 2_000
    assert steps[-1] == STEPS - 1  # the last one is skipped
    gaps = [after - before for before, after in pairwise(steps)]
    assert min(gaps) >= 1
    assert max(gaps) < 20
    by_step = {line.step: line for line in lines if isinstance(line, TrainLine)}
    for at, step in enumerate(steps):
        assert found.columns["time"][at] == by_step[step].time
        assert found.columns["learning_rate"][at] == by_step[step].learning_rate
        losses = found.columns["loss_min"][at], found.columns["loss_max"][at]
        assert losses[0] <= found.columns["loss"][at] * (1 + 1e-12)
        assert found.columns["loss"][at] <= losses[1] * (1 + 1e-12)


def test_fewer_points_read_fewer_bytes(record):
    read = [read_curves(record, points).bytes_read for points in (300, 600, 1_200)]
    assert read[0] < read[1] < read[2]
    assert read[0] < 1_000_000


def test_the_cache_makes_marks_and_extremes_exact(record, lines, cache):
    found = read_curves(record, 200, cache=cache)
    assert found.complete
    assert found.thinned
    assert marks(found) == rare(lines, 1, STEPS)
    assert max(found.columns["loss_max"]) > 40.0  # the spike
    assert_all_stand_for(found.columns, steps_between(lines, 1, STEPS))
    assert len(found.columns["step"]) <= 200


def test_a_file_of_the_cache_is_read_once(record, cache):
    read_curves(record, 200, cache=cache)
    again = read_curves(record, 200, cache=cache)
    assert again.complete
    assert again.bytes_read < BYTES_OF_PLACES


def test_points_share_steps_when_there_are_too_many(record, lines, tmp_path, monkeypatch):
    monkeypatch.setattr(curve_index, "MAX_POINTS", 100)
    index = extend_index(record, tmp_path / "curves")
    assert index.part.width == 128  # the smallest power of two with which 100 points are enough
    columns = index.points.columns()
    assert all((step - 1) // 128 == at for at, step in enumerate(columns["step"]))
    assert_all_stand_for(columns, steps_between(lines, 1, STEPS))


def test_what_is_appended_is_read_alone(tmp_path):
    path = long_record(tmp_path / "metrics.jsonl", 2_500)
    cache = tmp_path / "curves"
    whole = extend_index(path, cache).part.indexed_bytes
    long_record(path, 50, first_step=2_501)
    with OpenRecord(path) as opened:
        index = curve_index.load_index(opened, cache)
        assert index.part.indexed_bytes == whole
        assert opened.bytes_read < 50_000
    found = read_curves(path, 100, cache=cache)
    assert found.complete
    assert found.columns["step"][-1] == 2_550
    assert extend_index(path, cache).part.indexed_bytes == path.stat().st_size
    assert read_curves(path, 100, cache=cache).columns == found.columns
    anew = extend_index(path, tmp_path / "other")
    assert anew.points.columns() == extend_index(path, cache).points.columns()


def test_an_index_that_grew_equals_one_of_the_whole(record, tmp_path, monkeypatch):
    monkeypatch.setattr(curve_index, "MAX_POINTS", 64)
    path, text = tmp_path / "metrics.jsonl", record.read_bytes()
    for share in (0.1, 0.15, 0.5, 0.52, 1.0):
        path.write_bytes(text[: int(share * len(text))])  # torn wherever it is
        index = extend_index(path, tmp_path / "grown")
    other = extend_index(path, tmp_path / "at once")
    np.testing.assert_allclose(index.points.rows, other.points.rows, rtol=1e-12)
    assert index.part == other.part


@pytest.mark.parametrize(
    "change",
    [
        lambda path, text: path.write_bytes(text[: len(text) // 3]),  # cut
        lambda path, text: replaced(path, text),  # by another file with the same lines
        lambda path, text: path.write_bytes(b"\n" + text),  # a line more at its beginning
        lambda path, text: path.write_bytes(text.replace(b'"loss": 2.', b'"loss": 3.')),
    ],
    ids=["cut", "replaced", "shifted", "other values"],
)
def test_another_record_is_read_anew(tmp_path, some_text, change):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(some_text)
    cache = tmp_path / "curves"
    extend_index(path, cache)
    change(path, path.read_bytes())
    with OpenRecord(path) as opened:
        assert curve_index.load_index(opened, cache) is None
    steps = [line.step for line in steps_between(safe_lines(path), 1, 2_000)]
    assert extend_index(path, cache).points.columns()["step"] == steps


def replaced(path, text):
    other = path.with_name("other")
    other.write_bytes(text)
    other.replace(path)


def safe_lines(path):
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes().lstrip(b"\n"))
    return read_metrics(copy)


def change_number(file):
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)


def change_header(file):
    head, _, body = file.read_bytes().partition(b"\n")
    values = json.loads(head)
    values["validations"][0]["step"] = "<script>"
    file.write_bytes(json.dumps(values).encode() + b"\n" + body)


@pytest.mark.parametrize(
    "tamper",
    [
        change_number,
        change_header,
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(file.read_bytes()[:-100]),
        lambda file: os.truncate(file, 2**40),  # sparse: it takes no disk
        lambda file: (file.rename(file.with_suffix(".x")), file.symlink_to(file.with_suffix(".x"))),
        lambda file: (file.unlink(), os.mkfifo(file)),
        lambda file: file.parent.chmod(0o750),
        lambda file: file.parent.chmod(0o707),
    ],
    ids=["number", "header", "empty", "cut", "huge", "link", "fifo", "group", "others"],
)
def test_a_cache_that_somebody_else_changed_is_not_used(tmp_path, some_text, tamper):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(some_text)
    cache = tmp_path / "curves"
    extend_index(path, cache)
    (file,) = cache.iterdir()
    assert read_curves(path, 100, cache=cache).complete
    tamper(file)
    with OpenRecord(path) as opened:
        assert curve_index.load_index(opened, cache) is None
    assert not read_curves(path, 100, cache=cache).complete


def test_nothing_is_kept_where_others_may_write(tmp_path):
    path = long_record(tmp_path / "metrics.jsonl", 10)
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    linked = tmp_path / "linked"
    linked.symlink_to(open_to_all)
    for cache in (open_to_all, linked):
        with pytest.raises(TrainerError, match="chmod 700"):
            extend_index(path, cache)
    assert list(open_to_all.iterdir()) == []
    extend_index(path, tmp_path / "own")
    assert (tmp_path / "own").stat().st_mode & 0o777 == 0o700


def test_the_cache_stays_small(tmp_path, monkeypatch):
    cache = tmp_path / "curves"
    for number in range(4):
        path = long_record(tmp_path / f"{number}.jsonl", 20)
        extend_index(path, cache)
        for file in cache.iterdir():  # older ones have older times
            os.utime(file, (file.stat().st_mtime - 10,) * 2)
        size = max(file.stat().st_size for file in cache.iterdir())
        monkeypatch.setattr(curve_index, "MAX_CACHE_BYTES", 3 * size)
    assert len(list(cache.iterdir())) == 3
    with OpenRecord(tmp_path / "0.jsonl") as opened:
        assert curve_index.load_index(opened, cache) is None
    with OpenRecord(tmp_path / "3.jsonl") as opened:
        assert curve_index.load_index(opened, cache)


def test_a_damaged_line_is_told_and_the_others_are_shown(record, tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(record.read_bytes())
    damaged(path, 6_001)
    extend_index(path, tmp_path / "curves")
    for found in (
        read_curves(path, 2_000, 5_900, 6_100),
        read_curves(path, 100, cache=tmp_path / "curves"),
    ):
        assert str(path) in found.problem
        assert "damaged line at byte" in found.problem
    around = read_curves(path, 2_000, 5_995, 6_007).columns["step"]
    assert around == [5995, 5996, 5997, 5998, 5999, 6002, 6003, 6004, 6005, 6006, 6007]


def test_a_large_damaged_part_hides_no_other_steps(record, tmp_path):
    text = bytearray(record.read_bytes())
    start, stop = int(len(text) * 0.3), int(len(text) * 0.45)
    text[start:stop] = b"\x00" * (stop - start)
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(text)
    for step in (2_301, 4_201, 6_001, 8_601):
        assert read_curves(path, 2_000, step, step + 3).columns["step"][0] == step


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n",
        b"no line end",
        b"\n" * 100_000,
        b"\x00" * 3_000_000,
        b'{"version": 2, "step": 5}\n' * 5_000,
        b'{"version": 9, "step": 1, "kind": "train"}\n',
        b'{"step": 1, "kind": "train", "time": NaN}\n',
        b"[" * 700_000 + b"\n",
    ],
    ids=["empty", "line end", "torn", "line ends", "zeros", "lines", "version", "nan", "nested"],
)
def test_what_is_no_record_has_no_points(tmp_path, text):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(text)
    for _ in range(2):
        found = read_curves(path, cache=tmp_path / "curves")
        assert found.columns["step"] == []
        assert found.events == []
        assert found.bytes_read < 5_000_000
        extend_index(path, tmp_path / "curves")
    assert bool(found.problem) == (b"\n" in text)


def test_without_a_record_there_is_nothing(tmp_path):
    assert read_curves(tmp_path / "metrics.jsonl").steps_recorded == 0
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="a folder"):
        read_curves(tmp_path / "folder")


def test_a_step_that_stands_twice_is_shown_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    numbers = (1, 2, 3, 2, 3, 4)
    path.write_text("".join(train_line(step).to_json() + "\n" for step in numbers))
    assert read_curves(path).columns["step"] == [1, 2, 3, 4]


def test_the_first_lines_of_all_are_read_too(tmp_path):
    """Of a version without goodput, and of one without versions."""
    path = tmp_path / "metrics.jsonl"
    lines = [json.loads(train_line(step).to_json()) for step in (1, 2)]
    del lines[0]["version"]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    columns = read_curves(path).columns
    assert columns["step"] == [1, 2]
    assert columns["goodput"] == [None, None]
    assert columns["world_size"] == [1, 1]


def test_a_line_that_is_too_long_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("transloom.observe.curves.record_blocks.LONGEST_LINE_BYTES", 4_000)
    monkeypatch.setattr("transloom.observe.curves.record_blocks.CHUNK_BYTES", 1_000)
    path = tmp_path / "metrics.jsonl"
    long_one = validation_line(1, text="x" * 5_000)
    spike = skipped_line(3, **SPIKE_FIELDS)
    lines = (train_line(1), long_one, train_line(2), spike)
    path.write_text("".join(line.to_json() + "\n" for line in lines))
    found = read_curves(path)
    assert found.columns["step"] == [1, 2]
    assert found.events == [spike]
    assert "more than 4,000 bytes" in found.problem


def test_thinning_keeps_sums_and_extremes():
    lines = [train_line(step, loss=float(step % 7)) for step in range(1, 101)]
    thin = Points.of_lines(lines).thinned(10).thinned(3)
    assert len(thin) == 3
    assert_all_stand_for(thin.columns(), lines)


def test_at_most_so_many_points(record):
    for points in (0, 1, 2, 3, 1_999, 10**9):
        found = read_curves(record, points, 1, 700).columns["step"]
        assert len(found) <= max(1, min(points, curves.MAX_POINTS))
        assert found


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (1, 10, [10]),
        (1, 11, [10, 20]),  # step 11 is in the second point
        (11, 20, [20]),
        (15, 25, [20, 30]),
        (-math.inf, 1, [10]),
        (30, math.inf, [30, 35]),
        (31, 35, [35]),
    ],
)
def test_a_range_has_every_point_with_one_of_its_steps(first, last, expected):
    single = Points.of_lines([train_line(step) for step in range(1, 36)])
    tens = single.by_width(10)
    assert tens.within(first, last).columns()["step"] == expected


def test_a_record_that_outgrows_its_points_is_thinned_alike_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(curve_index, "MAX_POINTS", 64)
    path, cache = tmp_path / "metrics.jsonl", tmp_path / "curves"
    long_record(path, 210)
    text = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(text[:200]))
    extend_index(path, cache)  # each of its points is of 4 steps
    monkeypatch.setattr(curve_index, "_KEPT", {})
    path.write_bytes(b"".join(text))
    grown = extend_index(path, cache)
    whole = extend_index(path, tmp_path / "other")
    assert grown.part.width == whole.part.width > 1
    np.testing.assert_allclose(grown.points.rows, whole.points.rows, rtol=1e-12)
