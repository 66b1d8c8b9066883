"""Curve files: their blocks against the record, growth, cuts, forgeries."""

import json
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.records.lines import COUNTED, skipped_line, train_line, validation_line

from trainer.record import curve_file, line_blocks
from trainer.record.curve_file import _PREFIX, SKIPPED, CurveFile
from trainer.record.curve_points import Points
from trainer.record.line_blocks import BLOCK_STEPS, read_blocks
from trainer.record.metrics_file import MetricsFile, train_lines
from trainer.record.metrics_lines import Resumed

BLOCK = 8  # steps


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    for module in (line_blocks, curve_file):
        monkeypatch.setattr(module, "BLOCK_STEPS", BLOCK)


@pytest.fixture
def paths(tmp_path):
    return tmp_path / "metrics.jsonl", tmp_path / "curves.bin"


def write(record, lines):
    with record.open("a") as file:
        file.writelines(line.to_json() + "\n" for line in lines)


def shown(curves, record):
    """The columns and the marks that a reader has: of the blocks, then of the record's end."""
    rest = list(read_blocks(record, curves.record_end, curves.last_step))
    points = []
    if curves.blocks:
        with curves.path.open("rb") as file:
            points = [block.read_steps(file.fileno()) for block in curves.blocks]
    points += [Points.of_lines(block.train) for block in rest]
    blocks = [block.header.lines for block in curves.blocks] + rest
    return Points.joined(points).valid().columns(), [m for block in blocks for m in block.marks]


def from_record(record):
    lines = [line for block in read_blocks(record) for line in block.train]
    marks = [mark for block in read_blocks(record) for mark in block.marks]
    return Points.of_lines(lines).columns(), marks


def assert_same(found, expected):
    assert found[1] == expected[1]
    for name, values in expected[0].items():
        assert found[0][name] == [None if x is None else pytest.approx(x, rel=1e-6) for x in values]


def some_lines(steps):
    """Steps of which some are skipped, validated, repeated, or have more facts than others."""
    for step in range(1, steps + 1):
        if step % 5 == 3:
            yield skipped_line(step)
        else:
            yield train_line(step, **COUNTED if step > steps // 2 else {})
        if step % 4 == 0:
            yield validation_line(step)
        if step % 7 == 0:
            yield Resumed(step=step, from_step=step - 2)
            yield train_line(step - 1)


def drawn_line(kind, step, number):
    if kind == "bad":
        return f"{number} is no line"
    return {
        "train": lambda: train_line(step, loss=number),
        "counted": lambda: train_line(step, time=number, **COUNTED),
        "skipped": lambda: skipped_line(step),
        "validation": lambda: validation_line(step),
        "resumed": lambda: Resumed(step=step, from_step=0),
        "repeat": lambda: train_line(max(1, step - 2), loss=number),
    }[kind]().to_json()


kinds = st.sampled_from(["train", "counted", "skipped", "validation", "resumed", "repeat", "bad"])


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(kinds, st.floats(-1e30, 1e30)), max_size=60), st.data())
def test_blocks_and_the_records_end_have_what_the_record_has(tmp_path_factory, drawn, data):
    folder = tmp_path_factory.mktemp("run")
    record, path = folder / "metrics.jsonl", folder / "curves.bin"
    record.touch()
    step, writer = 0, CurveFile(path, record)
    for kind, number in drawn:
        step += kind in ("train", "counted", "skipped")
        with record.open("a") as file:
            file.write(drawn_line(kind, step, number) + "\n")
        if data.draw(st.booleans(), "extend"):
            writer.extend()
    assert_same(shown(CurveFile(path, record), record), from_record(record))


def test_the_file_only_grows_while_the_run_trains(paths):
    record, path = paths
    metrics, before = MetricsFile(record, 0, curves=path), b""
    for step in range(1, 5 * BLOCK):
        metrics.append(train_line(step) if step % 5 else skipped_line(step))
        content = path.read_bytes() if path.exists() else b""
        assert content.startswith(before)
        before = content
    metrics.close()
    curves = CurveFile(path, record)
    assert [block.header.rows for block in curves.blocks] == [BLOCK] * 4
    assert_same(shown(curves, record), from_record(record))


def test_repeated_steps_write_nothing(paths):
    record, path = paths
    for start in (0, 3, BLOCK + 2):
        metrics = MetricsFile(record, start, curves=path)
        for step in range(start + 1, 2 * BLOCK + 4):
            metrics.append(train_line(step))
        metrics.close()
        content = path.read_bytes()
        assert len(CurveFile(path, record).blocks) == 2
    assert path.read_bytes() == content
    assert shown(CurveFile(path, record), record)[0]["step"] == list(range(1, 2 * BLOCK + 4))


def test_a_kill_between_the_step_and_its_block_leaves_no_gap(paths, monkeypatch):
    record, path = paths
    metrics = MetricsFile(record, 0, curves=path)
    with monkeypatch.context() as patched:  # as if the process ended before the write
        patched.setattr(CurveFile, "step_recorded", lambda *_: None)
        for step in range(1, 2 * BLOCK + 1):
            metrics.append(train_line(step))
    metrics.close()
    assert not path.exists()
    metrics = MetricsFile(record, BLOCK, curves=path)
    for step in range(BLOCK + 1, 2 * BLOCK + 2):
        metrics.append(train_line(step))
    metrics.close()
    assert len(CurveFile(path, record).blocks) == 2
    assert_same(shown(CurveFile(path, record), record), from_record(record))


def test_a_full_disk_stops_no_training(paths):
    record, path = paths
    path.mkdir()
    metrics = MetricsFile(record, 0, curves=path)
    for step in range(1, 3 * BLOCK):
        metrics.append(train_line(step))
    metrics.close()
    assert len(train_lines(record)) == 3 * BLOCK - 1
    path.rmdir()
    metrics = MetricsFile(record, 3 * BLOCK - 1, curves=path)
    metrics.append(train_line(3 * BLOCK))
    metrics.close()
    assert len(CurveFile(path, record).blocks) == 3


def test_a_block_has_the_facts_that_were_recorded_in_its_steps(paths):
    record, path = paths
    write(record, [train_line(step) for step in range(1, BLOCK + 1)])
    write(record, [train_line(step, **COUNTED) for step in range(BLOCK + 1, 2 * BLOCK + 1)])
    CurveFile(path, record).extend()
    first, second = (block.header.steps.keys() for block in CurveFile(path, record).blocks)
    assert second - first == {"tflops_per_second", "mfu"}
    columns = shown(CurveFile(path, record), record)[0]
    assert columns["mfu"][BLOCK - 1 : BLOCK + 1] == [None, pytest.approx(COUNTED["mfu"])]


def test_skipped_and_unknown_have_different_bits(paths):
    record, path = paths
    write(record, [train_line(1, **COUNTED), train_line(2), skipped_line(3)])
    write(record, [train_line(step) for step in range(4, BLOCK + 1)])
    CurveFile(path, record).extend()
    (block,) = CurveFile(path, record).blocks
    data, at, bits = path.read_bytes(), block.steps_at, {}
    for name, kind in block.header.steps.items():
        stored = np.frombuffer(data, kind, BLOCK, at)
        at += stored.nbytes
        bits[name] = stored.astype(np.float64).view(np.uint64)
    assert at == len(data)
    assert np.isnan(bits["mfu"].view(np.float64)[1:]).all()
    assert bits["mfu"][2] == bits["time"][2] == bits["loss"][2] == SKIPPED != bits["mfu"][1]
    assert shown(CurveFile(path, record), record)[0]["step"] == [1, 2, *range(4, BLOCK + 1)]


def test_a_file_cut_at_any_byte_is_continued(paths):
    record, path = paths
    write(record, some_lines(3 * BLOCK + 2))
    CurveFile(path, record).extend()
    whole, expected = path.read_bytes(), from_record(record)
    ends = [block.end for block in CurveFile(path, record).blocks]
    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])
        curves = CurveFile(path, record)
        assert len(curves.blocks) == sum(end <= length for end in ends)
        assert bool(curves.problem) == (length not in (0, *ends))
        if length % 5 == 0:
            assert_same(shown(curves, record), expected)
        curves.extend()
        assert path.read_bytes() == whole


def test_a_changed_bit_ends_the_intact_blocks(paths):
    record, path = paths
    write(record, some_lines(3 * BLOCK))
    CurveFile(path, record).extend()
    whole, expected = path.read_bytes(), from_record(record)
    for at in range(0, len(whole), 53):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        columns, marks = shown(CurveFile(path, record), record)
        assert marks == expected[1]
        assert set(columns["step"]) <= set(expected[0]["step"])


def forged(path, change):
    """Change the header of the first block, with a checksum that fits."""
    data = path.read_bytes()
    magic, size, points, steps, _, crc32 = _PREFIX.unpack_from(data)
    header = json.loads(data[_PREFIX.size : _PREFIX.size + size])
    header |= change(header)
    text, rest = json.dumps(header).encode(), data[_PREFIX.size + size :]
    crc = zlib.crc32(text + rest[:points])
    path.write_bytes(_PREFIX.pack(magic, len(text), points, steps, crc, crc32) + text + rest)


@pytest.mark.parametrize(
    "change",
    [
        lambda header: {"rows": 10**9},
        lambda header: {"rows": -1},
        lambda header: {"rows": 1},
        lambda header: {"steps": header["steps"] | {"more": "<f8"}},
        lambda header: {"steps": {"loss": "|O"}},
        lambda header: {"steps": dict.fromkeys(map(str, range(100)), "<f8")},
        lambda header: {"points": header["points"][:3]},
        lambda header: {"points": []},
        lambda header: {"points": ["x" * 100]},
        lambda header: {"lines": header["lines"] | {"end": 10**14}},
        lambda header: {"lines": header["lines"] | {"start": 5}},
        lambda header: {"lines": header["lines"] | {"end": "<script>"}},
        lambda header: {"lines": None},
        lambda header: {"record_crc32": 1},
        lambda header: {"more": 1},
    ],
)
def test_a_forged_header_is_not_trusted(paths, change):
    record, path = paths
    write(record, some_lines(2 * BLOCK + 1))
    CurveFile(path, record).extend()
    forged(path, change)
    columns, _ = shown(CurveFile(path, record), record)
    assert set(columns["step"]) <= set(from_record(record)[0]["step"])
    json.dumps(columns, allow_nan=False)


def test_forged_sizes_and_numbers_are_not_trusted(paths):
    record, path = paths
    write(record, some_lines(2 * BLOCK))
    CurveFile(path, record).extend()
    whole = path.read_bytes()
    for at in range(8, _PREFIX.size, 4):
        path.write_bytes(whole[:at] + b"\xff\xff\xff\x7f" + whole[at + 4 :])
        assert shown(CurveFile(path, record), record)[1] == from_record(record)[1]
    (block, _), (magic, *sizes, _, _) = CurveFile(path, record).blocks, _PREFIX.unpack_from(whole)
    for number in (np.nan, np.inf, -1.0, 1e300):
        points = struct.pack("<d", number) * (sizes[1] // 8)
        steps = struct.pack("<d", number) * (sizes[2] // 8 + 1)
        text = whole[_PREFIX.size :][: sizes[0]]
        crc32s = zlib.crc32(text + points), zlib.crc32(steps[: sizes[2]])
        content = _PREFIX.pack(magic, *sizes, *crc32s) + text + points + steps[: sizes[2]]
        path.write_bytes(content + whole[block.end :])
        for found in (shown(CurveFile(path, record), record)[0], joined_points(path, record)):
            assert 1e300 not in found["step"]
            json.dumps(found, allow_nan=False)


def joined_points(path, record):
    return Points.joined(block.points for block in CurveFile(path, record).blocks).valid().columns()


def test_a_block_takes_1024_steps():
    assert BLOCK_STEPS == 1_024


def test_many_events_end_a_block_early(paths, monkeypatch):
    monkeypatch.setattr(line_blocks, "BLOCK_BYTES", 1_000)
    record, path = paths
    write(record, [Resumed(step=0, from_step=0)] * 100)
    CurveFile(path, record).extend()
    curves = CurveFile(path, record)
    assert len(curves.blocks) > 5
    assert len(shown(curves, record)[1]) == 100


def test_a_long_record_of_before_is_caught_up_with_during_steps(paths, monkeypatch):
    monkeypatch.setattr(curve_file, "BLOCKS_AT_ONCE", 2)
    record, path = paths
    write(record, [train_line(step) for step in range(1, 5 * BLOCK)])
    metrics = MetricsFile(record, 5 * BLOCK - 1, curves=path)
    for step, blocks in ((5 * BLOCK, 2), (5 * BLOCK + 1, 4), (5 * BLOCK + 2, 5)):
        metrics.append(train_line(step))
        assert len(CurveFile(path, record).blocks) == blocks
    metrics.close()
