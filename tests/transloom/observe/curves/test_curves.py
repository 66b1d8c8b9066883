"""Curves read through the curve file, compared with the parsed record."""

import math
import os
from collections import deque

import pytest
from support.records.lines import SPIKE_FIELDS, skipped_line, train_line, validation_line
from support.records.long_records import damaged, long_record

from run_store.folder import RunFolder
from run_store.record.curve_file import CurveFile
from run_store.record.curve_points import COLUMNS, MEANS, OF_THE_LAST, Points
from run_store.record.metrics_file import read_metrics
from run_store.record.metrics_lines import TrainLine, ValidationLine
from transloom.observe.curves.curves import MAX_POINTS, read_curves

STEPS = 9_000
SPIKE_STEP = 4_321
ROUNDED = 1e-6  # relative error of float32


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a run with a record of 5 MB, a curve file, a spike, and an incomplete last line."""
    run = RunFolder(tmp_path_factory.mktemp("long"))
    long_record(run.metrics, STEPS, spikes=(SPIKE_STEP,))
    CurveFile(run.curves, run.metrics).extend()
    with run.metrics.open("a") as file:
        file.write('{"version": 2, "step": 9001, "epo')
    return run


@pytest.fixture(scope="module")
def lines(run):
    return read_metrics(run.metrics)


@pytest.fixture
def copy(run, tmp_path, monkeypatch):
    """Return a run with the same record but without a curve file."""
    monkeypatch.setenv("TRANSLOOM_CACHE", str(tmp_path / "home"))
    copy = RunFolder(tmp_path)
    copy.metrics.write_bytes(run.metrics.read_bytes())
    return copy


def steps_between(lines, first, last):
    return [line for line in lines if isinstance(line, TrainLine) and first <= line.step <= last]


def marks(found):
    return [[line.step for line in kind] for kind in (found.lines.validations, found.lines.events)]


def rare(lines):
    validated = [line.step for line in lines if isinstance(line, ValidationLine)]
    return [validated, [x.step for x in lines if not isinstance(x, ValidationLine | TrainLine)]]


def assert_stands_for(columns, at, lines):
    """Assert that a point has the last, mean and extreme values of exactly these lines."""
    assert columns["step"][at] == lines[-1].step
    for name in OF_THE_LAST:
        last = getattr(lines[-1], name)
        assert columns[name][at] == (last and pytest.approx(last, rel=ROUNDED))
    for name in MEANS:
        values = [getattr(line, name) for line in lines]
        if None in values:
            assert columns[name][at] is None
            continue
        mean = math.fsum(values) / len(lines)
        assert columns[name][at] == pytest.approx(mean, rel=ROUNDED)
    for name, extreme in (("loss_min", min), ("loss_max", max), ("grad_norm_max", max)):
        values = [getattr(line, name.rpartition("_")[0]) for line in lines]
        assert columns[name][at] == pytest.approx(extreme(values), rel=ROUNDED)


def assert_all_stand_for(columns, lines):
    """Assert that points summarize all lines: each point those since the previous point."""
    rest = deque(lines)
    for at, step in enumerate(columns["step"]):
        own = []
        while rest and rest[0].step <= step:
            own.append(rest.popleft())
        assert_stands_for(columns, at, own)
    assert not rest


@pytest.mark.parametrize(
    ("first", "last"), [(1, 300), (1_020, 1_028), (5_990, 6_010), (8_900, 9_000), (7, 7)]
)
def test_a_short_range_has_a_point_for_every_step(run, lines, first, last):
    found = read_curves(run, 2_000, first, last)
    expected = steps_between(lines, first, last)
    assert not found.thinned
    assert found.steps_recorded == STEPS
    assert set(found.columns) == set(COLUMNS)
    assert found.columns["step"] == [line.step for line in expected]
    assert_all_stand_for(found.columns, expected)
    assert found.columns["time"] == [line.time for line in expected]  # float64


@pytest.mark.parametrize("points", [0, 1, 3, 200, 10**9])
def test_points_summarize_all_steps_and_no_validation_or_event_is_lost(run, lines, points):
    found = read_curves(run, points)
    assert 0 < len(found.columns["step"]) <= max(1, min(points, MAX_POINTS))
    assert found.problem is None
    assert found.bytes_read < 2_000_000 < run.metrics.stat().st_size
    assert marks(found) == rare(lines)
    assert found.lines.validations[-1].samples
    assert max(found.columns["loss_max"]) > 40.0  # the spike is kept
    assert_all_stand_for(found.columns, steps_between(lines, 1, STEPS))


def test_a_curve_file_is_cached_for_a_run_that_has_none(run, copy):
    before = sorted(path.name for path in copy.path.iterdir())
    found = read_curves(copy, 200)
    assert found.problem is None
    assert found.columns == read_curves(run, 200).columns
    assert marks(found) == marks(read_curves(run, 200))
    assert sorted(path.name for path in copy.path.iterdir()) == ["home", *before]
    (file,) = (copy.path / "home" / "curves").iterdir()
    assert file.read_bytes() == run.curves.read_bytes()
    assert file.parent.stat().st_mode & 0o777 == 0o700
    changed = file.stat().st_mtime_ns
    assert read_curves(copy, 200).columns == found.columns
    assert file.stat().st_mtime_ns == changed


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o777])
def test_a_cache_folder_that_other_users_can_enter_is_not_used(run, copy, mode):
    cache = copy.path / "home" / "curves"
    cache.mkdir(parents=True)
    cache.chmod(mode)
    found = read_curves(copy, 200)
    assert "chmod 700" in found.problem
    assert list(cache.iterdir()) == []
    assert found.columns["step"][-1] == STEPS - 1


@pytest.mark.parametrize(
    "change",
    [
        lambda path, text: path.write_bytes(text[: len(text) // 2]),  # the end is lost
        lambda path, text: path.write_bytes(text[len(text) // 2 :].partition(b"\n")[2]),
        lambda path, text: path.write_bytes(text.replace(b'"loss": 2.', b'"loss": 3.')),
        lambda path, text: path.write_bytes(text[:100_000]),
    ],
)
def test_curves_show_the_current_record_if_the_curve_file_is_outdated(run, copy, change):
    copy.curves.write_bytes(run.curves.read_bytes())
    change(copy.metrics, copy.metrics.read_bytes())
    expected = steps_between(read_metrics(copy.metrics), 1, STEPS)
    found = read_curves(copy, 2_000)
    assert_all_stand_for(found.columns, expected)


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(file.read_bytes()[:150_000]),
        lambda file: file.write_bytes(file.read_bytes()[:-400_000]),
        lambda file: file.write_bytes(b"x" * 1_000_000),
        lambda file: os.truncate(file, 0) or os.truncate(file, 2**40),  # a sparse file
        lambda file: (file.unlink(), os.mkfifo(file)),
    ],
)
def test_a_damaged_curve_file_is_reported_and_the_record_is_read(run, copy, damage):
    copy.curves.write_bytes(run.curves.read_bytes())
    damage(copy.curves)
    found = read_curves(copy, 200)
    assert str(copy.curves) in found.problem
    assert "Remove the file" in found.problem
    assert found.columns == read_curves(run, 200).columns


def test_a_damaged_line_is_reported_and_all_other_steps_are_shown(copy):
    damaged(copy.metrics, 6_001)
    for _ in range(2):  # first from the record, then from the curve file
        for points, first, last in ((2_000, 5_900, 6_100), (100, 1, STEPS)):
            found = read_curves(copy, points, first, last)
            assert str(copy.metrics) in found.problem
            assert "damaged line b'\\x00" in found.problem
        around = read_curves(copy, 2_000, 5_995, 6_007).columns["step"]
        assert around == [5995, 5996, 5997, 5998, 5999, 6002, 6003, 6004, 6005, 6006, 6007]
        CurveFile(copy.curves, copy.metrics).extend()


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n",
        b"no line end",
        b"\n" * 10_000,
        b"\x00" * 3_000_000,
        b'{"version": 2, "step": 5}\n' * 5_000,
        b'{"version": 9, "step": 1, "kind": "train"}\n',
        b'{"step": 1, "kind": "train", "time": NaN}\n',
        b"[" * 700_000 + b"\n",
    ],
    ids=["empty", "line end", "torn", "line ends", "zeros", "lines", "version", "nan", "nested"],
)
def test_a_record_without_valid_lines_has_no_points(copy, text):
    copy.metrics.write_bytes(text)
    for _ in range(2):
        found = read_curves(copy)
        assert found.columns["step"] == []
        assert found.lines.events == []
        CurveFile(copy.curves, copy.metrics).extend()
    assert bool(found.problem) == (b"\n" in text)


def test_a_run_without_a_record_has_no_steps(tmp_path):
    assert read_curves(RunFolder(tmp_path)).steps_recorded == 0
    (tmp_path / "metrics.jsonl").mkdir()
    assert read_curves(RunFolder(tmp_path)).steps_recorded == 0


def test_a_too_long_line_is_reported_and_other_lines_are_shown(tmp_path, monkeypatch):
    monkeypatch.setattr("run_store.record.line_blocks.LONGEST_LINE_BYTES", 4_000)
    monkeypatch.setattr("run_store.record.line_blocks.CHUNK_BYTES", 1_000)
    run = RunFolder(tmp_path)
    long_one = validation_line(1, text="x" * 5_000)
    spike = skipped_line(3, **SPIKE_FIELDS)
    lines = (train_line(1), long_one, train_line(2), spike)
    run.metrics.write_text("".join(line.to_json() + "\n" for line in lines))
    found = read_curves(run)
    assert found.columns["step"] == [1, 2]
    assert found.lines.events == [spike]
    assert "more than 4,000 bytes" in found.problem


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
def test_a_range_includes_every_point_that_overlaps_it(first, last, expected):
    single = Points.of_lines([train_line(step) for step in range(1, 36)])
    tens = single.by_width(10)
    assert tens.within(first, last).columns()["step"] == expected
