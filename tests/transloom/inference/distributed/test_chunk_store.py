"""Chunks of a file of lines, and the folder that stores their translations."""

import os

import pytest

from cluster.errors import ClusterError
from data_pipeline.errors import CorpusError
from transloom.inference.distributed.chunk_store import ChunkStore, WorkMetadata, scan_file

CARD = WorkMetadata(
    checkpoints=["a" * 64],
    precision="fp32",
    decoding={"beam_size": 4},
    input_sha256="b" * 64,
    lines=5,
    lines_per_chunk=2,
    tag=None,
    n_best=1,
    alignments=False,
    as_json=False,
    long_lines="refuse",
    max_tokens=128,
)


@pytest.fixture
def work(tmp_path):
    return ChunkStore(tmp_path / "out", 3)


def finished(work):
    with work.owned(CARD) as chunks:
        for number in chunks:
            work.keep(number, [f"{number} ä", ""])
        work.finish()
    return work.output.read_text()


def test_a_file_is_split_at_line_feeds_into_chunks_of_lines(tmp_path):
    file = tmp_path / "lines"
    file.write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthree\n\nf\xc3\xbcnf\n\xef\xbb\xbfsix")
    given = scan_file(str(file), 2)
    assert given.lines == 5
    chunks = [given.chunk(number) for number in range(len(given.starts))]
    assert chunks == [["one", "two three"], ["", "fünf"], ["\ufeffsix"]]
    assert [given.size(number) for number in range(3)] == [2, 2, 1]


def test_scanning_a_file_reports_a_line_that_is_not_utf_8(tmp_path):
    file = tmp_path / "lines"
    file.write_bytes(b"one\ntwo\nthr\xff\n")
    with pytest.raises(CorpusError, match="line 3: the byte 0xff, number 4"):
        scan_file(str(file), 2)


def test_reading_a_chunk_fails_if_the_file_has_changed_since_the_scan(tmp_path):
    file = tmp_path / "lines"
    file.write_text("one\ntwo\n")
    given = scan_file(str(file), 1)
    assert given.chunk(1) == ["two"]
    file.write_text("one\nzwei\n")
    os.utime(file, ns=(0, given.changed_at + 1))  # the two writes may have equal times
    with pytest.raises(CorpusError, match="was changed while it was translated"):
        given.chunk(1)


def test_finish_writes_the_results_to_the_output_in_order(work):
    with work.owned(CARD) as chunks:
        assert chunks == [0, 1, 2]
        for number in (2, 0, 1):
            work.keep(number, [f"{number} ä", ""])
        assert not work.output.exists()
        work.finish()
    assert work.output.read_text() == "0 ä\n\n1 ä\n\n2 ä\n\n"
    assert not work.folder.exists()


def test_only_missing_and_damaged_chunks_are_translated_again(work):
    with work.owned(CARD):
        work.keep(0, ["0 ä", ""])
        work.keep(1, ["1 ä", ""])
    damaged = work.folder / "00000001.txt"
    damaged.write_bytes(damaged.read_bytes()[:-3] + b"x\n\n")
    with work.owned(CARD) as chunks:
        assert chunks == [1, 2]
        with pytest.raises(ClusterError, match=r"00000001\.txt is damaged"):
            work.finish()
    assert finished(work) == "0 ä\n\n1 ä\n\n2 ä\n\n"


def test_a_folder_made_with_other_settings_is_refused(work):
    with work.owned(CARD):
        work.keep(0, ["0"])
    other = CARD.model_copy(update={"decoding": {"beam_size": 8}, "lines": 6})
    with (
        pytest.raises(ClusterError, match=r"decoding beam_size 4 → beam_size 8"),
        work.owned(other),
    ):
        pass
    with pytest.raises(ClusterError, match=r"lines 5 → 6"), work.owned(other):
        pass


def test_a_second_command_cannot_use_the_same_folder(work):
    with (
        work.owned(CARD),
        pytest.raises(ClusterError, match="Another command works in"),
        ChunkStore(work.output, 3).owned(CARD),
    ):
        pass


def test_an_existing_output_is_not_overwritten(work):
    work.output.write_text("mine")
    with pytest.raises(ClusterError, match="already exists"), work.owned(CARD):
        pass
    assert work.output.read_text() == "mine"
