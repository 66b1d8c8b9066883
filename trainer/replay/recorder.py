"""The recorder of a replay: lines go into the scratch folder's record, and nowhere else."""

from trainer.rank.rank_job import RankContext
from trainer.record.metrics import MetricsRecord
from trainer.record.records import Line


class ReplayRecorder:
    """Keeps the lines of steps that are trained again, to be compared with the run's own."""

    def __init__(self, context: RankContext, first_step: int) -> None:
        """
        Args:
            first_step: the step of the checkpoint that the replay begins at, or 0.
        """
        self._supervision = context.supervision
        self._record = MetricsRecord(context.run.metrics, first_step, context.supervision.notice)

    @property
    def last_step(self) -> int:
        return self._record.last_step

    def append(self, line: Line) -> None:
        self._record.append(line)
        self._supervision.line(line)

    def keep_texts(self, step: int, texts: list[str]) -> None:
        """Do nothing: a replay does not validate."""

    def sync(self) -> None:
        self._record.sync()

    def close(self) -> None:
        self._record.close()
