"""Tar archives that were made to do harm are refused by name and with little memory."""

from dataclasses import replace

import pytest
from support.files.tar_by_hand import GOOD, ZEROS, entry, header, pax, read
from support.quality import memory

from data_pipeline.errors import TarContentError
from data_pipeline.storage import tar

HUGE = b"\x80" + (10**15).to_bytes(11, "big")  # base 256, as in GNU tar for large sizes
THIRD = f"the header at byte {len(GOOD):,}"


ATTACKS = {
    "hard link": (entry(b"x.txt", b"", b"1"), "x.txt", "regular file.*hard link"),
    "symbolic link": (entry(b"x.txt", b"", b"2"), "x.txt", "symbolic link"),
    "character device": (entry(b"x.txt", b"", b"3"), "x.txt", "character device"),
    "block device": (entry(b"x.txt", b"", b"4"), "x.txt", "block device"),
    "FIFO": (entry(b"x.txt", b"", b"6"), "x.txt", "FIFO"),
    "long link": (entry(b"x.txt", b"target\0", b"K"), "x.txt", "link with a long name"),
    "GNU sparse file": (entry(b"x.txt", b"data", b"S"), "x.txt", "sparse file"),
    "PAX sparse file": (pax((b"GNU.sparse.major", b"1")) + GOOD, THIRD, "sparse file"),
    "unknown type": (entry(b"x.txt", b"", b"V"), "x.txt", "type b'V'"),
    "directory with data": (entry(b"x/", b"data", b"5"), "x/", "directory of 0 bytes, found 4"),
    "absolute name": (entry(b"/etc/x.txt"), "/etc/x.txt", "relative name"),
    "absolute directory": (entry(b"/", b"", b"5"), "/", "relative name"),
    "parent": (entry(b"../x.txt"), "../x.txt", r"no '\.\.'"),
    "parent within": (entry(b"a/../../x.txt"), "a/../../x.txt", r"no '\.\.'"),
    "parent by prefix": (
        entry(b"x.txt", rest=bytes(100) + b"ustar\x0000" + bytes(80) + b"../.."),
        "../../x.txt",
        r"no '\.\.'",
    ),
    "parent by PAX": (pax((b"path", b"../x.txt")) + GOOD, "../x.txt", r"no '\.\.'"),
    "parent by long name": (entry(b"L", b"../x.txt\0", b"L") + GOOD, "../x.txt", r"no '\.\.'"),
    "parent by backslashes": (entry(b"a\\..\\..\\x.txt"), "a/../../x.txt", r"no '\.\.'"),
    "absolute by a backslash": (entry(b"\\x.txt"), "/x.txt", "relative name"),
    "NUL by PAX": (pax((b"path", b"x.txt\0.jpg")) + GOOD, "x.txt\0.jpg", "NUL"),
    "NUL by long name": (entry(b"L", b"x.txt\0.jpg\0", b"L") + GOOD, "x.txt\0.jpg", "NUL"),
    "empty name": (entry(b""), "", "relative name"),
    "file named as a directory": (entry(b"a/", b"data"), "a/", "directory of 0 bytes, found 4"),
    "member too large": (header(b"x.txt", 100_001), "x.txt", "at most 100,000 .* 100,001"),
    "member of a petabyte": (header(b"x.txt", HUGE), "x.txt", "found 1,000,000,000,000,000"),
    "petabyte passed over": (header(b"x.jpg", HUGE), "x.jpg", "found 1,000,000,000,000,000"),
    "petabyte by PAX": (pax((b"size", b"1" + b"0" * 15)) + GOOD, "good.txt", "found 1,000,"),
    "PAX header too large": (header(b"p", 10**9, b"x"), THIRD, "extended .* 1,000,000,000"),
    "PAX header of a petabyte": (header(b"p", HUGE, b"g"), THIRD, "found 1,000,000,000,000,000"),
    "long name too large": (header(b"L", 65_537, b"L"), THIRD, "at most 65,536 .* 65,537"),
    "name too long": (
        pax((b"path", b"k" * 5000 + b".txt")) + GOOD,
        "k" * 200,
        "at most 4,096 characters in a member's name, found 5,004. Give",
    ),
    "global path": (
        pax((b"path", b"y.txt"), kind=b"g") + GOOD,
        THIRD,
        "global header without path and size",
    ),
    "PAX size not a number": (pax((b"size", b"-1")) + GOOD, THIRD, "in digits, found b'-1'"),
    "PAX record of length 0": (entry(b"p", b"0 path=x\n", b"x") + GOOD, THIRD, "PAX record"),
    "PAX record too long": (entry(b"p", b"99 path=x\n", b"x") + GOOD, THIRD, "PAX record"),
    "PAX record too short": (entry(b"p", b"5 path=x\n", b"x") + GOOD, THIRD, "PAX record"),
    "PAX record without length": (entry(b"p", b"path=x\n", b"x") + GOOD, THIRD, "PAX record"),
    "PAX header for nothing": (pax((b"path", b"x.txt")), "the header at byte 2,048", "octal"),
    "negative size": (header(b"x.txt", b"\xff" * 12), THIRD, "octal number"),
    "size as Python writes numbers": (header(b"x.txt", b"0o1_0\0\0\0\0\0\0\0"), THIRD, "octal"),
    "no size": (header(b"x.txt", bytes(12)), THIRD, "octal number, found"),
    "garbage between members": (b"garbage!" * 64 + GOOD, THIRD, "octal number"),
    "wrong checksum": (header(b"x.txt", 0).replace(b"x", b"y"), THIRD, "checksum"),
    "zeros between members": (bytes(512) + GOOD, "the end of the archive", "only zeros from"),
    "archive after archive": (ZEROS + GOOD, "the end of the archive", "only zeros from"),
    "not a tar file": (b"\x1f\x8b" + bytes(510), THIRD, "octal number"),
} | {
    f"pickle .{suffix}": (entry(b"x." + suffix.encode()), f"x.{suffix}", "no pickles")
    for suffix in ("pkl", "pickle", "pyd", "pth", "pt", "PKL", "txt.pkl", "y.pickle")
}


@pytest.mark.parametrize(("attack", "member", "problem"), ATTACKS.values(), ids=ATTACKS)
def test_attacks_are_refused_with_little_memory(attack: bytes, member: str, problem: str) -> None:
    """Pickles are refused even if the reader skips all other members."""
    with memory.at_most(1_000_000), pytest.raises(TarContentError, match=problem) as caught:
        read(GOOD + attack + ZEROS)
    assert (caught.value.archive, caught.value.member) == ("a.tar", member)
    assert str(caught.value).startswith(f"a.tar cannot be used because of {member!r}: ")


def test_all_kinds_of_headers_count_towards_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """This includes headers of skipped members, and headers that precede a member's header."""
    monkeypatch.setattr(tar, "HEADERS", replace(tar.HEADERS, limit=5))
    folder, picture, comment = entry(b"a/", b"", b"5"), entry(b"x.jpg"), pax((b"comment", b"x"))
    assert len(read(GOOD + folder + picture + comment + GOOD + ZEROS)) == 2
    with pytest.raises(TarContentError, match=r"at most 5 headers .* found 6\. Split"):
        read(GOOD + folder + picture + comment + comment + GOOD + ZEROS)
