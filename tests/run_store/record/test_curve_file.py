"""Curve files compared with their records, while they grow, after cuts, and if forged."""

import json
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.records.lines import COUNTED, skipped_line, train_line, validation_line

from run_store.folder import RunFolder
from run_store.record import curve_file, line_blocks
from run_store.record.curve_file import _PREFIX, SKIPPED, CurveFile
from run_store.record.curve_points import Points
from run_store.record.line_blocks import read_blocks
from run_store.record.metrics_file import MetricsFile
from run_store.record.metrics_lines import Resumed

BLOCK = 8  # steps per block


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    for module in (line_blocks, curve_file):
        monkeypatch.setattr(module, "BLOCK_STEPS", BLOCK)


@pytest.fixture
def run(tmp_path):
    return RunFolder(tmp_path)


def opened(run):
    return CurveFile(run.curves, run.metrics)


def write(run, lines):
    """Write a record and its curve file."""
    run.metrics.write_text("".join(f"{line.to_json()}\n" for line in lines))
    opened(run).extend()


def train(run, after, last):
    """Append the steps from `after` + 1 to `last`, and require that the curve file only grows."""
    metrics = MetricsFile(run.metrics, after, curves=run.curves)
    content = b""
    for step in range(after + 1, last + 1):
        metrics.append(train_line(step) if step % 5 else skipped_line(step))
        before, content = content, run.curves.read_bytes() if run.curves.is_file() else b""
        assert content.startswith(before)
    metrics.close()


def shown(run):
    """Return the columns and marks that readers get from the blocks and the record's end."""
    curves = opened(run)
    rest = list(read_blocks(run.metrics, curves.record_end, curves.last_step))
    points = [Points.of_lines(block.train) for block in rest]
    if curves.blocks:
        with run.curves.open("rb") as file:
            points[:0] = [block.read_steps(file.fileno()) for block in curves.blocks]
    blocks = [block.header.lines for block in curves.blocks] + rest
    return Points.joined(points).valid().columns(), [m for block in blocks for m in block.marks]


def from_record(run):
    blocks = list(read_blocks(run.metrics))
    columns = Points.of_lines([line for block in blocks for line in block.train]).columns()
    return columns, [mark for block in blocks for mark in block.marks]


def assert_complete(run):
    (columns, marks), (expected, expected_marks) = shown(run), from_record(run)
    assert marks == expected_marks
    for name, values in expected.items():
        assert columns[name] == [None if x is None else pytest.approx(x, rel=1e-6) for x in values]


def line_of(kind, step, number):
    """Return a line of a record: a step, or an event or validation after a step."""
    return {
        "train": lambda: train_line(step, loss=number),
        "counted": lambda: train_line(step, time=number, **COUNTED),
        "skipped": lambda: skipped_line(step),
        "validation": lambda: validation_line(step),
        "resumed": lambda: Resumed(step=step, from_step=0),
        "repeated": lambda: train_line(max(1, step - 2), loss=number),
    }[kind]()


STEPS = ["train", "counted", "skipped"]
MIXED = [
    line_of(kind, step, 1.5)
    for step in range(1, 3 * BLOCK + 3)
    for kind in (STEPS[step % 3], *(["validation", "resumed", "repeated"] if step % 4 == 0 else []))
]
kinds = st.sampled_from([*STEPS, "validation", "resumed", "repeated", "no line"])


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(kinds, st.floats(-1e30, 1e30), st.booleans()), max_size=60))
def test_the_blocks_and_the_rest_of_the_record_contain_the_whole_record(tmp_path_factory, drawn):
    run = RunFolder(tmp_path_factory.mktemp("run"))
    run.metrics.touch()
    step, writer = 0, opened(run)
    for kind, number, extends in drawn:
        step += kind in STEPS
        with run.metrics.open("a") as file:
            file.write(f"{kind if kind == 'no line' else line_of(kind, step, number).to_json()}\n")
        if extends:
            writer.extend()
    assert_complete(run)


def test_repeated_steps_do_not_change_the_curve_file(run):
    train(run, 0, 2 * BLOCK + 3)
    content = run.curves.read_bytes()
    assert [block.header.rows for block in opened(run).blocks] == [BLOCK] * 2
    for start in (3, BLOCK + 2):
        train(run, start, 2 * BLOCK + 3)
        assert run.curves.read_bytes() == content
    assert_complete(run)


def test_a_block_that_a_killed_process_did_not_write_is_added_later(run, monkeypatch):
    with monkeypatch.context() as patched:  # as if the process ended before it wrote the block
        patched.setattr(CurveFile, "step_recorded", lambda *_: None)
        train(run, 0, 2 * BLOCK)
    assert not run.curves.exists()
    train(run, BLOCK, 2 * BLOCK + 1)
    assert len(opened(run).blocks) == 2
    assert_complete(run)


def test_training_continues_while_the_curve_file_cannot_be_written(run):
    run.curves.mkdir()
    train(run, 0, 3 * BLOCK)
    run.curves.rmdir()
    assert_complete(run)
    train(run, 3 * BLOCK, 3 * BLOCK + 1)
    assert len(opened(run).blocks) == 3


def test_missing_blocks_of_a_long_record_are_added_a_few_at_each_step(run, monkeypatch):
    monkeypatch.setattr(curve_file, "BLOCKS_AT_ONCE", 2)
    write(run, [train_line(step) for step in range(1, 5 * BLOCK)])
    run.curves.unlink()
    for step, blocks in ((5 * BLOCK, 2), (5 * BLOCK + 1, 4), (5 * BLOCK + 2, 5)):
        train(run, step - 1, step)
        assert len(opened(run).blocks) == blocks


def test_a_block_has_only_the_facts_recorded_in_its_steps(run):
    counted = [train_line(step, **COUNTED) for step in range(BLOCK + 1, 2 * BLOCK + 1)]
    write(run, [*(train_line(step) for step in range(1, BLOCK + 1)), *counted])
    first, second = (block.header.steps.keys() for block in opened(run).blocks)
    assert second - first == {"tflops_per_second", "mfu"}
    assert_complete(run)


def test_skipped_steps_and_unknown_values_are_stored_as_different_nans(run):
    lines = [train_line(1, **COUNTED), train_line(2), skipped_line(3)]
    write(run, lines + [train_line(step) for step in range(4, BLOCK + 1)])
    (block,), bits = opened(run).blocks, {}
    at = block.steps_at
    for name, kind in block.header.steps.items():
        stored = np.frombuffer(run.curves.read_bytes(), kind, BLOCK, at)
        at += stored.nbytes
        bits[name] = stored.astype(np.float64).view(np.uint64)
    assert np.isnan(bits["mfu"].view(np.float64)[1:]).all()
    assert bits["mfu"][2] == bits["time"][2] == bits["loss"][2] == SKIPPED != bits["mfu"][1]
    assert shown(run)[0]["step"] == [1, 2, *range(4, BLOCK + 1)]


def test_a_curve_file_cut_at_any_byte_is_continued(run):
    write(run, MIXED)
    whole, ends = run.curves.read_bytes(), [block.end for block in opened(run).blocks]
    steps = set(from_record(run)[0]["step"])
    for length in range(0, len(whole), 37):
        run.curves.write_bytes(whole[:length])
        curves = opened(run)
        assert len(curves.blocks) == sum(end <= length for end in ends)
        assert bool(curves.problem) == (length not in (0, *ends))
        if length % 5 == 0:
            assert_complete(run)
        curves.extend()
        assert run.curves.read_bytes() == whole
        run.curves.write_bytes(whole[:length] + bytes([whole[length] ^ 4]) + whole[length + 1 :])
        assert set(shown(run)[0]["step"]) <= steps  # a changed bit adds no steps


def forge(run, change=lambda header: {}, number=None):
    """Change the header, or all numbers of the first block, and update the checksums."""
    data = run.curves.read_bytes()
    magic, *sizes, _, _ = _PREFIX.unpack_from(data)
    header, points, steps, rest = np.split(
        np.frombuffer(data[_PREFIX.size :], np.uint8), np.cumsum(sizes)
    )
    values = json.loads(header.tobytes())
    text = json.dumps(values | change(values)).encode()
    parts = [points.tobytes(), steps.tobytes()]
    if number is not None:
        parts = [(np.full(len(part), number).tobytes())[: len(part)] for part in parts]
    sums = zlib.crc32(text + parts[0]), zlib.crc32(parts[1])
    prefix = _PREFIX.pack(magic, len(text), *sizes[1:], *sums)
    run.curves.write_bytes(b"".join([prefix, text, *parts, rest.tobytes()]))


@pytest.mark.parametrize(
    "change",
    [
        *({"rows": 10**9}, {"rows": -1}, {"rows": 1}, {"more": 1}, {"record_crc32": 1}),
        *({"steps": {"loss": "|O"}}, {"steps": dict.fromkeys(map(str, range(100)), "<f8")}),
        *({"steps": {"time": "<f8"}}, {"points": []}, {"points": ["x" * 100]}, {"points": ["x"]}),
        *({"lines": None}, {"lines": {"end": 10**14}}, {"lines": {"end": "<script>"}}),
    ],
)
def test_a_forged_header_adds_no_steps(run, change):
    write(run, MIXED)
    forge(run, lambda header: change)
    assert set(shown(run)[0]["step"]) <= set(from_record(run)[0]["step"])


@pytest.mark.parametrize("number", [np.nan, np.inf, -1.0, 1e300])
def test_forged_numbers_add_no_steps(run, number):
    write(run, MIXED)
    forge(run, number=number)
    overview = Points.joined(block.points for block in opened(run).blocks).valid().columns()
    for columns in (shown(run)[0], overview):
        assert set(columns["step"]) <= set(range(1, 3 * BLOCK + 3))
        json.dumps(columns, allow_nan=False)
