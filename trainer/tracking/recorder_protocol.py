"""Interface of a rank's recorder, and the recorder of ranks that record nothing."""

from typing import Protocol

from run_store.record.metrics_lines import Line


class RecorderProtocol(Protocol):
    """Interface of a recorder, as the training loop uses it."""

    @property
    def last_step(self) -> int: ...

    def append(self, line: Line) -> None: ...

    def record_texts(self, step: int, texts: list[str]) -> None: ...


class NoRecorder:
    """Recorder that records nothing; ranks other than 0 would repeat the lines of rank 0."""

    last_step = 0

    def append(self, line: Line) -> None:
        pass

    def record_texts(self, step: int, texts: list[str]) -> None:
        pass
