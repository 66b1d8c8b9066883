"""Tar archives: what tar, tarfile and webdataset write is read alike; anything else is refused."""

import contextlib
import io
import pickle
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.files.tar_by_hand import GOOD, ZEROS, entry, header, pax, read
from support.quality import memory
from webdataset.tariterators import base_plus_ext
from webdataset.writer import TarWriter

from data_pipeline.errors import TarContentError
from data_pipeline.storage.tar import EXTENDED_HEADER, TarMember, TarReader


def test_the_hand_made_archive_is_right() -> None:
    assert read(GOOD + ZEROS) == [TarMember("good", "txt", b"data\n")]


def test_chains_of_extended_headers_take_no_stack_and_no_memory() -> None:
    chain = pax((b"comment", b"x" * 60_000)) * 2_000
    stream = io.BytesIO(chain + GOOD + ZEROS)
    with memory.at_most(10 * EXTENDED_HEADER.limit):
        assert [member.key for member in read(stream)] == ["good"]


def test_portuguese_is_text_when_asked_for() -> None:
    archive = entry(b"1.en") + entry(b"1.pt") + ZEROS
    assert [member.suffix for member in read(archive, decoded=["en", "pt"])] == ["en", "pt"]


def test_names_are_webdatasets() -> None:
    archive = b"".join(
        [
            entry(b"./", b"", b"5"),
            entry(b"./a.b/c.SRC.Txt", b"1"),
            entry(b"d.tXt", b"2"),
            entry(b"d.JPG", b"3" * 5000),
            entry(b"e.v1.txt", b"4"),
        ]
    )
    assert read(archive + ZEROS, decoded=["src.txt", "txt", "v1.txt"]) == [
        TarMember("./a.b/c", "src.txt", b"1"),
        TarMember("d", "txt", b"2"),
        TarMember("e", "v1.txt", b"4"),
    ]


FOLDERS = st.text(st.characters(codec="utf-8", exclude_characters="/\\\0"), max_size=60)
NAMES = st.builds(
    lambda folders, key, suffix: "/".join([*folders, f"{key}.{suffix}"]),
    st.lists(FOLDERS.filter(lambda folder: folder not in ("", "..")), max_size=4),
    st.text(st.characters(codec="utf-8", exclude_characters="/\\.\0\n"), min_size=1, max_size=70),
    st.sampled_from(["txt", "en.txt", "TXT", "En.Txt"]),
)


@given(
    st.dictionaries(NAMES, st.binary(max_size=1500), max_size=4),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_like_tarfile_and_webdataset(files: dict[str, bytes], tar_format: int) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    with tarfile.open(fileobj=io.BytesIO(buffer.getvalue())) as tar:
        assert [info.name for info in tar] == list(files)  # the reference understands it
    found = read(buffer.getvalue(), decoded=["txt", "en.txt"])
    assert [member.data for member in found] == list(files.values())
    for member, name in zip(found, files, strict=True):
        if "\n" not in name:  # which webdataset's pattern does not match
            key, suffix = base_plus_ext(name)
            assert (member.key, member.suffix) == (key, suffix.lower())


@pytest.mark.parametrize("tar_format", ["v7", "ustar", "gnu", "oldgnu", "posix"])
def test_output_of_the_tar_command_is_read(tmp_path: Path, tar_format: str) -> None:
    long = "" if tar_format == "v7" else "folder-with-a-long-name/" * 5
    (tmp_path / long).mkdir(parents=True, exist_ok=True)
    for number in range(20):
        (tmp_path / f"{long}{number:03d}.txt").write_bytes(bytes([number]) * number * 100)
        (tmp_path / f"{long}{number:03d}.jpg").write_bytes(b"picture" * 3000)
    command = ["tar", f"--format={tar_format}", "--sort=name", "-C", str(tmp_path), "-cf", "-", "."]
    with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as tar:
        assert isinstance(tar.stdout, io.RawIOBase)
        assert not tar.stdout.seekable()
        members = read(tar.stdout)  # type: ignore[arg-type]
    assert tar.returncode == 0
    assert members == [
        TarMember(f"./{long}{number:03d}", "txt", bytes([number]) * number * 100)
        for number in range(20)
    ]


def test_output_of_webdataset_is_read() -> None:
    buffer = io.BytesIO()
    with TarWriter(buffer) as writer:
        for number in range(3):
            writer.write({"__key__": f"a/{number}", "txt": f"text {number}"})
    assert [member.data for member in read(buffer.getvalue())] == [b"text 0", b"text 1", b"text 2"]


def test_git_archives_with_a_global_header() -> None:
    archive = pax((b"comment", b"0" * 40), kind=b"g") + GOOD + ZEROS
    assert [member.key for member in read(archive)] == ["good"]


class Fountain(io.RawIOBase):
    """A stream that makes up `size` bytes after its start and is never held as a whole."""

    def __init__(self, start: bytes, size: int) -> None:
        self.parts = [start]
        self.left = size

    def read(self, count: int = -1) -> bytes:
        if self.parts:
            part, rest = self.parts[0][:count], self.parts[0][count:]
            self.parts = [rest] if rest else []
            return part
        count = min(count, self.left)
        self.left -= count
        return bytes(count)


def test_skipped_members_are_not_held_in_memory() -> None:
    size = 64 * 1024 * 1024
    fountain = Fountain(header(b"x.jpg", size), size + len(ZEROS))
    with memory.at_most(1_000_000):
        assert read(fountain, max_member_bytes=size) == []  # type: ignore[arg-type]
    assert fountain.left == 0


class Trickle(io.BytesIO):
    """A stream that gives little at a time, as a socket may."""

    def read(self, count: int | None = -1) -> bytes:
        return super().read(min(count or -1, 100))


TWO = entry(b"1.txt", b"a" * 700) + entry(b"2.txt", b"b" * 512) + ZEROS


def test_a_trickling_stream() -> None:
    assert read(Trickle(TWO)) == read(TWO)


def test_a_cut_anywhere_is_noticed() -> None:
    enough = len(TWO) - 512  # one block of zeros ends an archive
    for length in range(len(TWO)):
        if length == enough:
            assert len(read(TWO[:length])) == 2
        else:
            with pytest.raises(TarContentError, match=r"truncated: expected [\d,]+ bytes of "):
                read(TWO[:length])


def test_every_flipped_bit_outside_the_data_is_noticed_or_harmless() -> None:
    whole = read(TWO)
    structure = [*range(512), *range(1536, 2048), *range(2560, len(TWO))]
    for byte in structure:
        for bit in range(8):
            flipped = bytearray(TWO)
            flipped[byte] ^= 1 << bit
            with contextlib.suppress(TarContentError):
                assert read(bytes(flipped)) == whole
                # Within the checksum, which is no part of the sum, 0, space and NUL mean the same.
                assert 148 <= byte % 512 < 156


@given(st.lists(st.tuples(st.integers(0, len(TWO) - 1), st.integers(0, 255)), max_size=40))
def test_damage_never_raises_anything_else(changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(pax((b"path", b"other.txt")) + TWO)
    for position, value in changes:
        damaged[position] = value
    with contextlib.suppress(TarContentError):
        read(bytes(damaged))


def test_nothing_is_opened_or_started() -> None:
    """Names that gopen would run are names and nothing else."""
    code = """
import io, sys
from data_pipeline.storage.budget import Budget
from data_pipeline.storage.tar import read_members
events = []
archive = sys.stdin.buffer.read()
sys.addaudithook(lambda event, arguments: events.append(event))
members = list(read_members(io.BytesIO(archive), archive="pipe:touch b",
                            decoded={"txt": Budget("bytes", 1000, "Cut it")},
                            max_member_bytes=1000))
assert [member.key for member in members] == ["pipe:touch a; x", "http://x/y"], members
assert not events, events
"""
    archive = b"".join(
        [entry(b"pipe:touch a; x.txt"), entry(b"http://x/y.txt"), entry(b"pipe:touch c.jpg"), ZEROS]
    )
    subprocess.run([sys.executable, "-c", code], input=archive, check=True)


def test_the_error_crosses_process_borders() -> None:
    error = TarContentError("a.tar", "x.txt", "expected 1, found 2")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - made in this line
    assert (copy.archive, copy.member, copy.problem) == ("a.tar", "x.txt", "expected 1, found 2")
    assert str(copy) == str(error)


def test_archives_of_other_systems() -> None:
    """Hidden files of macOS, names of Windows and of older encodings, directories by name."""
    apple = pax((b"LIBARCHIVE.xattr.com.apple.quarantine", b"x"))
    archive = b"".join(
        [
            entry(b"a/", b"", b"0"),
            entry(b"a/._1.txt", b"\0\5\x16\7"),
            apple + entry(b"a/1.txt", b"1"),
            entry(b"a/.DS_Store", b"x"),
            entry(b"__MACOSX/a/._1.txt", b"x"),
            entry(b"__MACOSX/a/1.txt", b"x"),
            entry(b"b\\2.TXT", b"2"),
            entry("é.txt".encode("latin-1"), b"3", b"7"),
            ZEROS,
        ]
    )
    assert read(archive) == [
        TarMember("a/1", "txt", b"1"),
        TarMember("b/2", "txt", b"2"),
        TarMember("é", "txt", b"3"),
    ]


@pytest.mark.parametrize("name", [b"b\\2.txt", b"._1.txt", b"a/", "é.txt".encode("latin-1")])
def test_own_archives_have_no_such_names(name: bytes) -> None:
    archive = io.BytesIO(entry(name, b"") + ZEROS)
    with pytest.raises(TarContentError):
        list(TarReader(archive, archive="a.tar", max_member_bytes=10))
