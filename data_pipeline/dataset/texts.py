"""The texts of a field as bytes, one a line.

A sentence stands as it is: it has no line end. A document may have some, so it stands as a JSON
string.
"""

import json
from collections.abc import Sequence

from data_pipeline.dataset.manifest_records import FieldInfo
from data_pipeline.errors import DatasetFileError
from foundation.wording import counted


def pack_texts(texts: Sequence[str], field: FieldInfo) -> bytes:
    """The lines of a field's texts, each with its end."""
    if field.is_document:
        texts = [json.dumps(text, ensure_ascii=False) for text in texts]
    return "".join(text + "\n" for text in texts).encode()


def unpack_texts(file: str, data: bytes, field: FieldInfo, member: str = "it") -> list[str]:
    """The texts of lines that `pack_texts` has made.

    Args:
        file: has the lines, or has the member that has them; a name in errors.

    Raises:
        DatasetFileError: they are not UTF-8, or no JSON strings; the message names the line.
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
    """The texts of a file of a held-out set.

    Raises:
        DatasetFileError: as with `unpack_texts`, or there are not `count` lines.
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
