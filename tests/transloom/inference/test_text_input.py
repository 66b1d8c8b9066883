"""Input of commands is UTF-8 in every locale, and lines end only at \\n."""

import io
import sys

import pytest
from support.quality.memory import at_most

from data_pipeline.corpora.lines import MAX_LINE_BYTES
from data_pipeline.errors import CorpusError
from transloom.inference.text_input import argument_text, lines_of, read_lines, typed_lines

# Characters that Python's text files or splitlines treat as line ends.
INSIDE = "a\rb\x0bc\x0cd\x1ce\x85f\u2028g\u2029h\0i"


@pytest.fixture
def given(monkeypatch):
    """Return a function that sets bytes as standard input in a Latin-1 locale."""

    def give(data):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data), encoding="latin-1"))

    return give


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"\n", [""]),
        ("étudiant\nça".encode(), ["étudiant", "ça"]),
        (b"\xef\xbb\xbfone\r\ntwo\r\n\nthree", ["one", "two", "", "three"]),
        (f"{INSIDE}\n".encode(), [INSIDE]),
    ],
)
def test_lines_end_only_at_line_feeds(given, tmp_path, data, lines):
    given(data)
    assert read_lines("-") == lines
    given(data)
    assert list(typed_lines()) == lines
    (tmp_path / "text").write_bytes(data)
    assert read_lines(str(tmp_path / "text")) == lines


def test_the_error_for_invalid_utf8_names_the_line_and_byte(given, tmp_path):
    data = b"un\nd\xc3\xa9j\xe0 vu\n"
    given(data)
    with pytest.raises(CorpusError, match=r"standard input, line 2: the byte 0xe0, number 5, is"):
        read_lines("-")
    (tmp_path / "text").write_bytes(data)
    with pytest.raises(CorpusError, match=r"text, line 2: the byte 0xe0, number 5, is not UTF-8"):
        read_lines(str(tmp_path / "text"))
    given(b"cesu \xed\xa0\x80\n")
    with pytest.raises(CorpusError, match=r"line 1: the byte 0xed, number 6"):
        read_lines("-")


def test_an_endless_line_is_refused_without_filling_memory():
    class Endless(io.RawIOBase):
        def readable(self):
            return True

        def readinto(self, buffer):
            buffer[:] = b"a" * len(buffer)
            return len(buffer)

    with (
        at_most(4 * MAX_LINE_BYTES),
        pytest.raises(CorpusError, match=r"line 1 is longer than 1,048,576 bytes"),
    ):
        list(lines_of(io.BufferedReader(Endless()), "-"))
    longest = b"a" * (MAX_LINE_BYTES - 1) + b"\n"
    assert [len(line) for line in lines_of(io.BytesIO(longest * 2), "-")] == [len(longest) - 1] * 2


def test_a_closed_standard_input_and_a_folder_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(CorpusError, match="Standard input is closed"):
        read_lines("-")
    with pytest.raises(CorpusError, match="cannot be read: Is a directory"):
        read_lines(str(tmp_path))


def test_arguments_are_decoded_as_utf8_in_every_locale(monkeypatch):
    assert argument_text("étudiant") == "étudiant"
    # In the C locale, Python passes the bytes of é as surrogates. A byte that is not UTF-8 is
    # refused.
    assert argument_text("\udcc3\udca9") == "é"
    with pytest.raises(CorpusError, match=r"number 4, is not UTF-8"):
        argument_text("non\udce9")
    monkeypatch.setattr("os.fsencode", lambda text: text.encode("latin-1"))
    assert argument_text("Ã©") == "é"
    assert argument_text("→") == "→"
    assert sys.getfilesystemencoding() == "utf-8"
