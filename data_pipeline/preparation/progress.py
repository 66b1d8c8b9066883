"""Progress reports of a preparation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class PrepareProgress:
    """Stage of a preparation, and its progress.

    `done` and `total` count corpora in the stage "open", bytes in "read", models in "train
    tokenizer", pairs in "write" and "unchanged", and files in "compare". "unchanged" means that the
    dataset already exists, prepared from the same settings and text.
    """

    stage: Literal["open", "read", "train tokenizer", "write", "compare", "unchanged"]
    done: int
    total: int


Report = Callable[[PrepareProgress], None]
