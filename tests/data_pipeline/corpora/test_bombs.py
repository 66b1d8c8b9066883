"""Small files that expand to gigabytes: each is refused, or read in little memory."""

import re
import subprocess
import sys

import pytest
from support.files import bombs

TOO_LONG = r"line 1: the line is longer than 1,048,576 bytes"
EXPANSION = (
    r"expected at most 200 bytes of content for each byte .* found \d+,?\d*\. Remove the file"
)
MEMORY = r"needs more memory than xz -9 .* at most 134,217,728 bytes"
pytestmark = pytest.mark.long
SAID = {
    "innocent": r"read [\d,]+",
    "one line": TOO_LONG,
    "short lines": EXPANSION,
    "held out": EXPANSION,
    "zst window": MEMORY,
    "xz dictionary": MEMORY,
    "scores": r"'0\.score': expected at most 1,024 bytes .* found 9,999,872",
    "long keys": "at most 4,096 characters in a member's name, found 60,000",
    "parquet rows": r"at most 200 bytes of rows for each byte of a Parquet file, found \d+,\d+",
    "parquet": r"at most 150,000,000 bytes of memory to decode .* Write the file again",
    "json": r"line 1: expected at most 2,000,000 values .* found [36],000,00\d\. Remove all",
}


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """Return the reader's peak memory and message for each file, keyed by the file's name."""
    folder = tmp_path_factory.mktemp("bombs")
    command = [sys.executable, bombs.__file__, str(folder)]
    subprocess.run([*command, "write"], check=True)
    output = subprocess.run([*command, "read"], check=True, stdout=subprocess.PIPE, text=True)
    lines = [line.split("\t", 2) for line in output.stdout.splitlines()]
    return {name: (int(peak_bytes), said) for name, peak_bytes, said in lines}


def test_each_bomb_gives_the_expected_message(read: dict[str, tuple[int, str]]) -> None:
    for name, (_, said) in read.items():
        pattern = next(SAID[kind] for kind in SAID if name.startswith(kind))
        assert re.search(pattern, said), f"{name}: {said}"
    assert len(read) > 20


def test_no_bomb_takes_much_more_memory_than_other_files(read: dict[str, tuple[int, str]]) -> None:
    """Without limits, each bomb takes at least some hundred megabytes more."""
    peaks = [peak_bytes for peak_bytes, _ in read.values()]
    innocent = max(peak for name, (peak, _) in read.items() if name.startswith("innocent"))
    assert max(peaks) < innocent + 200_000_000, {name: peak for name, (peak, _) in read.items()}
