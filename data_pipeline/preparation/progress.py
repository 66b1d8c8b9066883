"""Progress reports of a preparation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class PrepareProgress:
    """Stage of a preparation, and its progress in corpora, bytes of them, models, pairs or files.

    "unchanged" means that the dataset already exists, made from the same settings and text.
    """

    stage: Literal["open", "read", "train tokenizer", "write", "compare", "unchanged"]
    done: int
    total: int


Report = Callable[[PrepareProgress], None]
