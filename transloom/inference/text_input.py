"""Text that a command is given, in a file, on standard input or as an argument: UTF-8, always.

Python would decode standard input and arguments by the locale: in Latin-1 every byte is a letter,
so a sentence would be read as another one and nobody would know. Lines end at \\n alone, so that
line N of the output belongs to line N of the input; a \\r before it belongs to the line's end.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from data_pipeline.corpora.lines import BYTE_ORDER_MARK, MAX_LINE_BYTES
from data_pipeline.errors import CorpusError

STANDARD_INPUT = "-"


def file_label(file: str) -> str:
    """A file as messages name it."""
    return "standard input" if file == STANDARD_INPUT else file


def read_lines(file: str) -> list[str]:
    """All lines of a file, or of standard input.

    Raises:
        CorpusError: the file cannot be read, or a line is too long or not UTF-8.
    """
    try:
        if file == STANDARD_INPUT:
            return list(lines_of(_standard_input(), file))
        with Path(file).open("rb") as data:
            return list(lines_of(data, file))
    except OSError as error:
        raise CorpusError(f"{file_label(file)} cannot be read: {error.strerror}") from error


def typed_lines() -> Iterator[str]:
    """Lines of standard input, one by one, as they are typed."""
    return lines_of(_standard_input(), STANDARD_INPUT)


def lines_of(data: BinaryIO, file: str, before: int = 0) -> Iterator[str]:
    """The lines of bytes, without their ends.

    No more of a line is read than it may have, so that a line without end takes no memory.

    Args:
        before: lines of the file that were read earlier.
    """
    number = before
    while line := data.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            raise CorpusError(
                f"{file_label(file)}, line {number:,}: longer than {MAX_LINE_BYTES:,} bytes. "
                "Nothing was computed. Give one sentence or prompt a line; a line ends with \\n "
                "alone"
            )
        if number == 1:
            line = line.removeprefix(BYTE_ORDER_MARK)
        yield (
            _decoded(line, f"{file_label(file)}, line {number:,}")
            .removesuffix("\n")
            .removesuffix("\r")
        )


def argument_text(argument: str) -> str:
    """An argument of the command line, from the bytes that it really has.

    Raises:
        CorpusError: they are not UTF-8.
    """
    try:
        given = os.fsencode(argument)
    except UnicodeEncodeError:  # it never had bytes in this locale: a caller in Python made it
        given = argument.encode(errors="surrogatepass")
    return _decoded(given, f"The argument {argument!r}")


def _decoded(data: bytes, what: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{what}: the byte 0x{data[error.start]:02x}, number {error.start + 1:,}, is not UTF-8 "
            f"({error.reason}). Nothing was computed. Convert the text, for example with iconv"
        ) from error


def _standard_input() -> BinaryIO:
    if sys.stdin is None:
        raise CorpusError("Standard input is closed. Name a file, or give text through a pipe")
    return sys.stdin.buffer


def read_texts(arguments: Sequence[str], file: str | None = None) -> list[str]:
    """The texts of a command line, or of a file or standard input, one a line.

    Raises:
        CorpusError: a text is not UTF-8, a line is too long, or the file cannot be read.
    """
    if arguments:
        return [argument_text(argument) for argument in arguments]
    return read_lines(STANDARD_INPUT if file is None else file)
