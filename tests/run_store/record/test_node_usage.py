"""nodes.jsonl: written during training, and read from its end or thinned, even if damaged."""

import json
import resource
from itertools import pairwise
from pathlib import Path

import pytest

from run_store.record.node_usage import (
    END_BYTES,
    WHOLE_BYTES,
    GpuUsage,
    NodeLine,
    Usage,
    append_usage,
    newest_usage,
    read_usage,
)

GPU = GpuUsage(index=7, utilization_percent=99, memory_used_bytes=8 * 10**10, memory_bytes=10**11)
USAGE = Usage(cpu_percent=31.5, memory_used_bytes=8 * 10**9, memory_bytes=64 * 10**9)
BUSY = USAGE.model_copy(update={"gpus": [GPU] * 8})


def line(time: float, node: str = "gpu-7.cluster.local", usage: Usage = USAGE) -> NodeLine:
    return NodeLine.of(usage, 1.7e9 + time, step=int(time), node=node)


def test_written_samples_are_read_back_by_node(tmp_path: Path) -> None:
    path = tmp_path / "nodes.jsonl"
    lines = [line(0, "a"), line(0, "b\x1b\u202e", BUSY), line(30, "a")]
    append_usage(path, lines[:2])
    append_usage(path, lines[2:])
    found = read_usage(path)
    assert found.nodes == {"a": [lines[0], lines[2]], "b\x1b\u202e": [lines[1]]}
    assert (found.thinned, found.problem) == (False, None)
    assert newest_usage(path).nodes == {"a": [lines[2]], "b\x1b\u202e": [lines[1]]}
    assert "\x1b" not in path.read_text()
    assert "\u202e" not in path.read_text()
    for read in (read_usage, newest_usage):
        assert read(tmp_path / "none").nodes == {}
        with pytest.raises(OSError, match="it is a folder"):
            read(tmp_path)


def test_a_day_of_samples_is_as_small_as_documented() -> None:
    samples = 24 * 3600 // 30
    assert len(line(1e6).to_json()) * samples < 0.6e6
    assert len(line(1e6, usage=BUSY).to_json()) * samples < 3.3e6


@pytest.fixture
def long(tmp_path: Path) -> Path:
    """Write 40 MB of samples of three nodes, 40 times what is read, and return the path."""
    path = tmp_path / "nodes.jsonl"
    texts = [line(10**6, node).to_json().replace("1701000000.0", "{}") for node in "abc"]
    with path.open("w") as file:
        for sample in range(80_000):
            file.writelines(text.replace("{}", f"{1.7e9 + sample}") + "\n" for text in texts)
    return path


def test_a_long_file_is_thinned_by_reading_parts_of_it(long: Path) -> None:
    found = read_usage(long, points=500)
    assert found.thinned
    assert found.bytes_read <= WHOLE_BYTES
    assert found.problem is None
    for node in "abc":
        times = [each.time - 1.7e9 for each in found.nodes[node]]
        assert 450 <= len(times) <= 500
        assert times == sorted(set(times))
        assert times[0] < 1000
        assert times[-1] == 79_999  # the newest sample
        gaps = [after - before for before, after in pairwise(times)]
        assert max(gaps) < 3 * 80_000 / 500  # samples come from all over the file
    newest = newest_usage(long)
    assert newest.bytes_read <= END_BYTES
    assert {node: lines[0].time for node, lines in newest.nodes.items()} == dict.fromkeys(
        "abc", 1.7e9 + 79_999
    )


def test_a_short_file_is_thinned_to_the_requested_number_of_points(tmp_path: Path) -> None:
    path = tmp_path / "nodes.jsonl"
    append_usage(path, [line(time, "a") for time in range(100)])
    found = read_usage(path, points=30)
    assert found.thinned
    assert [each.step for each in found.nodes["a"]] == list(range(3, 100, 4))


DAMAGED = {
    "torn": line(1).to_json()[:50],
    "glued": line(1).to_json()[:50] + line(2).to_json(),
    "newer": line(1).to_json().replace('"version": 1', '"version": 2'),
    "not a number": line(1).to_json().replace("31.5", "NaN"),
    "more than all": line(1).to_json().replace("31.5", "101"),
    "below 0": line(1).to_json().replace("64000000000", "-1"),
    "too large": line(1).to_json().replace("64000000000", str(10**30)),
    "deep": "[" * 50_000,
    "many GPUs": line(1).to_json().replace("[]", json.dumps([GPU.model_dump()] * 65)),
    "long name": line(1).to_json().replace("gpu-7", "x" * 1000),
    "empty": "",
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_line_is_reported_and_skipped(tmp_path: Path, text: str) -> None:
    path = tmp_path / "nodes.jsonl"
    path.write_text(f"{line(1).to_json()}\n{text}\n{line(2).to_json()}\n{line(3).to_json()[:9]}")
    for read in (read_usage, newest_usage):
        found = read(path)
        (lines,) = found.nodes.values()
        assert lines[-1] == line(2)
        assert found.problem == f"{path} has 1 line that cannot be read"


def test_a_long_file_that_has_no_valid_line_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "nodes.jsonl"
    path.write_bytes(b"x" * (WHOLE_BYTES + 7))
    assert read_usage(path).nodes == {}
    path.write_bytes(b"x\n" * WHOLE_BYTES)
    found = read_usage(path)
    assert found.nodes == {}
    assert found.bytes_read <= WHOLE_BYTES
    assert "cannot be read" in (found.problem or "")


def test_lines_that_do_not_fit_on_a_full_disk_are_not_written_in_part(tmp_path: Path) -> None:
    path = tmp_path / "nodes.jsonl"
    append_usage(path, [line(1)])
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, limits[1]))
    try:
        append_usage(path, [line(2)])  # only ten bytes fit
        append_usage(path, [line(2)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    append_usage(path, [line(3)])
    assert [each.step for each in read_usage(path).nodes[line(1).node]] == [1, 3]
    append_usage(tmp_path / "nowhere" / "nodes.jsonl", [line(1)])
