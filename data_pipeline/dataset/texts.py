"""The texts of a field as bytes, one a line.

A sentence stands as it is: it has no line end. A document may have some, so it stands as a JSON
string.
"""

import json
from collections.abc import Sequence

from data_pipeline.dataset.manifest import FieldInfo


def pack_texts(texts: Sequence[str], field: FieldInfo) -> bytes:
    """The lines of a field's texts, each with its end."""
    if field.is_document:
        texts = [json.dumps(text, ensure_ascii=False) for text in texts]
    return "".join(text + "\n" for text in texts).encode()


def unpack_texts(data: bytes, field: FieldInfo) -> list[str]:
    """The texts of lines that `pack_texts` has made.

    Raises:
        ValueError: they are not UTF-8, or no JSON strings.
    """
    lines = data.decode().split("\n")[:-1]
    if not field.is_document:
        return lines
    texts = [json.loads(line) for line in lines]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("a line is no JSON string")
    return texts
