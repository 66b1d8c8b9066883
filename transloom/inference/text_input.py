"""Text input of a command, from a file, standard input or arguments, always in UTF-8.

Python would decode standard input and arguments with the locale's encoding. In Latin-1 every byte
is a character, so wrongly decoded text would not be detected. A line ends only at \\n or \\r\\n, so
that line N of the output belongs to line N of the input.
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
    """Return the name of a file as messages show it; "-" is shown as "standard input"."""
    return "standard input" if file == STANDARD_INPUT else file


def read_lines(file: str) -> list[str]:
    """Read all lines of a file or of standard input.

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
    """Yield the lines of standard input, each as soon as it is typed."""
    return lines_of(_standard_input(), STANDARD_INPUT)


def lines_of(data: BinaryIO, file: str, before: int = 0) -> Iterator[str]:
    """Yield the lines of a file without line ends.

    Reading stops after MAX_LINE_BYTES of a line, so that an endless line does not fill the memory.

    Args:
        data: the open file.
        file: name of the file, for messages.
        before: number of lines that were already read from the file.

    Raises:
        CorpusError: a line is too long or not UTF-8.
    """
    number = before
    while line := data.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            raise CorpusError(
                f"{file_label(file)}, line {number:,} is longer than {MAX_LINE_BYTES:,} bytes. "
                "Nothing was computed. Give one sentence or prompt per line; only \\n ends a "
                "line"
            )
        if number == 1:
            line = line.removeprefix(BYTE_ORDER_MARK)
        yield (
            _decoded(line, f"{file_label(file)}, line {number:,}")
            .removesuffix("\n")
            .removesuffix("\r")
        )


def argument_text(argument: str) -> str:
    """Decode a command-line argument from its original bytes.

    Raises:
        CorpusError: the bytes are not UTF-8.
    """
    try:
        given = os.fsencode(argument)
    except UnicodeEncodeError:  # passed by Python code, not by a command line in this locale
        given = argument.encode(errors="surrogatepass")
    return _decoded(given, f"The argument {argument!r}")


def _decoded(data: bytes, what: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{what}: the byte 0x{data[error.start]:02x}, number {error.start + 1:,}, is not UTF-8 "
            f"({error.reason}). Nothing was computed. Convert the text to UTF-8, for example with "
            "iconv"
        ) from error


def _standard_input() -> BinaryIO:
    if sys.stdin is None:
        raise CorpusError("Standard input is closed. Name a file, or pipe text into the command")
    return sys.stdin.buffer


def read_texts(arguments: Sequence[str], file: str | None = None) -> list[str]:
    """Return the texts of the command line or, if it has none, the lines of a file.

    Args:
        arguments: texts from the command line.
        file: file to read, or None for standard input.

    Raises:
        CorpusError: a text is not UTF-8, a line is too long, or the file cannot be read.
    """
    if arguments:
        return [argument_text(argument) for argument in arguments]
    return read_lines(STANDARD_INPUT if file is None else file)
