"""The shuffle on disk, compared with a sort in memory."""

import hashlib
import random
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.corpora.cleaning import DropReport, NumberedExample
from data_pipeline.preparation import shuffle
from data_pipeline.preparation.shuffle import PARTITIONS, Partitions, Row, pack_rows, shuffled_rows
from data_pipeline.random_keys import CORPUS_SHUFFLE, splitmix64, stream_state


def make_pairs(count: int, *, different: int, seed: int = 0) -> list[NumberedExample]:
    """Return pairs at every third position; each has one of `different` contents."""
    rng = random.Random(seed)
    return [
        NumberedExample(3 * number, (f"été {content}", "x" * (content % 50)))
        for number, content in enumerate(rng.choices(range(different), k=count))
    ]


def fill(
    folder: Path, pairs: list[NumberedExample], *, by_content: bool, chunk: int = 70
) -> Partitions:
    partitions = Partitions(folder)
    for start in range(0, len(pairs), chunk):
        partitions.add(pack_rows(pairs[start : start + chunk], 7, by_content=by_content))
    partitions.flush()
    return partitions


def read_back(groups: list[list[Path]], *, by_content: bool) -> tuple[list[Row], DropReport]:
    report = DropReport(["duplicate"])
    paths = chain.from_iterable(groups)
    return list(shuffled_rows(paths, 2, by_content=by_content, report=report)), report


def test_the_order_is_that_of_splitmix64_of_the_positions(tmp_path: Path) -> None:
    pairs = make_pairs(2000, different=500)
    keys = splitmix64(stream_state(CORPUS_SHUFFLE, 7), 6000)
    partitions = fill(tmp_path / "p", pairs, by_content=False)
    rows, report = read_back(partitions.groups(300), by_content=False)
    expected = sorted((int(keys[p]), p, texts) for p, texts in pairs)
    assert rows == expected
    assert report.counts() == {"duplicate": 0}
    assert [row.position for row in rows] != sorted(row.position for row in rows)


def test_the_first_of_equal_pairs_is_kept_wherever_its_duplicates_are(tmp_path: Path) -> None:
    pairs = make_pairs(2000, different=300)
    partitions = fill(tmp_path / "p", pairs, by_content=True)
    rows, report = read_back(partitions.groups(100), by_content=True)
    first: dict[tuple[str, ...], int] = {}
    duplicates = []
    for position, texts in pairs:
        if first.setdefault(texts, position) != position:
            duplicates.append(position)

    def key(texts: tuple[str, ...]) -> int:
        digest = hashlib.blake2b("\n".join(texts).encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little")

    assert rows == sorted((key(texts), p, texts) for texts, p in first.items())
    dropped = report.by_reason["duplicate"]
    assert dropped.count == len(duplicates)
    assert [example.position for example in dropped.examples] == duplicates[:10]


def test_chunks_and_flushes_change_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = make_pairs(1000, different=900)
    reference = read_back(
        fill(tmp_path / "0", pairs, by_content=True, chunk=1000).groups(1000), by_content=True
    )[0]
    monkeypatch.setattr(shuffle, "BUFFERED_BYTES", 1000)
    for number, chunk in enumerate((1, 33, 999), 1):
        partitions = fill(tmp_path / str(number), pairs, by_content=True, chunk=chunk)
        assert read_back(partitions.groups(90), by_content=True)[0] == reference


def test_pairs_with_only_one_equal_side_are_no_duplicates(tmp_path: Path) -> None:
    texts = [("a", "b c"), ("a b", "c"), ("ab", "c"), ("a", "b c")]
    pairs = [NumberedExample(position, pair) for position, pair in enumerate(texts)]
    partitions = fill(tmp_path / "p", pairs, by_content=True)
    rows, report = read_back(partitions.groups(10), by_content=True)
    assert sorted(row.position for row in rows) == [0, 1, 2]
    assert report.counts() == {"duplicate": 1}


def test_corpora_have_different_orders() -> None:
    pairs = make_pairs(100, different=100)
    one, other = (pack_rows(pairs, corpus, by_content=False).data for corpus in (0, 1))
    assert one != other


@pytest.mark.parametrize("most", [1, 3, 2000])
@pytest.mark.parametrize("pairs_per_group", [1, 70, 5000, 10**7])
@pytest.mark.parametrize("empty_share", [0.0, 0.9])
def test_groups_are_even_and_have_every_filled_partition_once(
    tmp_path: Path, most: int, pairs_per_group: int, empty_share: float
) -> None:
    rng = np.random.default_rng(most)
    partitions = Partitions(tmp_path / "p")
    partitions.counts[:] = rng.integers(0, most, PARTITIONS, endpoint=True)
    partitions.counts[rng.random(PARTITIONS) < empty_share] = 0
    partitions.counts[rng.integers(PARTITIONS)] = 10 * most  # as if one pair occurs often
    groups = partitions.groups(pairs_per_group)
    numbers = [[int(path.name) for path in group] for group in groups]
    assert list(chain.from_iterable(numbers)) == np.flatnonzero(partitions.counts).tolist()
    assert all(numbers)
    wanted = max(1, round(partitions.examples / pairs_per_group))
    assert len(groups) <= wanted
    pairs = [int(partitions.counts[group].sum()) for group in numbers]
    # A group's border is off by at most half a partition, and each group has two borders.
    assert max(pairs) <= partitions.examples / wanted + int(partitions.counts.max())


def test_packing_no_rows_gives_no_data() -> None:
    for by_content in (False, True):
        packed = pack_rows([], 0, by_content=by_content)
        assert packed.data == b""
        assert packed.counts.sum() == packed.sizes.sum() == 0
