"""Texts of a field as bytes, one text per line.

A sentence contains no line end and is written unchanged. A document may contain line ends, so it is
written as a JSON string.
"""

import json
from collections.abc import Sequence

from data_pipeline.dataset.manifest_header import FieldInfo
from data_pipeline.errors import DatasetFileError
from foundation.wording import counted


def pack_texts(texts: Sequence[str], field: FieldInfo) -> bytes:
    """Return a field's texts as lines, each with a line end."""
    if field.is_document:
        texts = [json.dumps(text, ensure_ascii=False) for text in texts]
    return "".join(text + "\n" for text in texts).encode()


def unpack_texts(file: str, data: bytes, field: FieldInfo, member: str = "it") -> list[str]:
    """Return the texts of lines written by `pack_texts`.

    Args:
        file: name, for errors, of the file that contains the lines.
        member: name, for errors, of the member with the lines if the file is an archive.

    Raises:
        DatasetFileError: the lines are not UTF-8 or not JSON strings; the message names the line.
    """
    try:
        *lines, rest = data.decode().split("\n")
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        raise DatasetFileError(file, f"UTF-8 in line {number:,} of {member}", str(error)) from error
    if rest:
        raise DatasetFileError(file, f"a line end at the end of {member}", f"{rest[-40:]!r}")
    if not field.is_document:
        return lines
    return [
        _document(line, file, f"line {number:,} of {member}")
        for number, line in enumerate(lines, 1)
    ]


def unpack_heldout(file: str, data: bytes, field: FieldInfo, count: int) -> list[str]:
    """Return the texts of one file of a held-out set.

    Raises:
        DatasetFileError: as in `unpack_texts`, or the number of lines is not `count`.
    """
    texts = unpack_texts(file, data, field)
    if len(texts) != count:
        raise DatasetFileError(file, counted(count, "line"), f"{len(texts):,}")
    return texts


def _document(line: str, file: str, place: str) -> str:
    try:
        text = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DatasetFileError(file, f"a JSON string in {place}", str(error)) from error
    if not isinstance(text, str):
        raise DatasetFileError(file, f"a JSON string in {place}", f"{line[:40]!r}")
    return text
