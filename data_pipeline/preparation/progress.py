"""What a preparation tells whoever waits for it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class PrepareProgress:
    """What is being done, and how much of it: corpora, bytes of them, models, pairs, files.

    "unchanged" means that the dataset is there already, made from the same settings and text.
    """

    stage: Literal["open", "read", "train tokenizer", "write", "compare", "unchanged"]
    done: int
    total: int


Report = Callable[[PrepareProgress], None]
