"""What a rank has to record, and the recorder of those that record nothing.

`trainer.tracking.recorder`, which rank 0 has, imports W&B; that takes most of a second.
"""

from typing import Protocol

from trainer.tracking.records import Line


class Recording(Protocol):
    """What the loop needs of a recorder."""

    @property
    def last_step(self) -> int: ...

    def append(self, line: Line) -> None: ...

    def keep_translations(self, step: int, translations: list[str]) -> None: ...


class NoRecorder:
    """That of ranks other than 0: what they would record is the same."""

    last_step = 0

    def append(self, line: Line) -> None:
        pass

    def keep_translations(self, step: int, translations: list[str]) -> None:
        pass
