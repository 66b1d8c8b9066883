"""Construction of one rank of a run or of a replay."""

from collections.abc import Callable, Iterator

from data_pipeline.batching.plan import Cursor
from data_pipeline.batching.stream import RankStep
from trainer.assembly.run import build_trainer
from trainer.checkpoints.run_copies import register_copy
from trainer.job.rank_job import RankContext, RankJob
from trainer.job.supervision import Supervision
from trainer.process.placement import Placement
from trainer.training.loop import Trainer


def build_rank(
    job: RankJob,
    *,
    placement: Placement,
    steps: Callable[[Cursor], Iterator[RankStep]],
    supervision: Supervision,
) -> Trainer:
    """Return the trainer of one rank of a run or, if the job has replay options, of a replay.

    Args:
        job: the run, and its checkpoint or warm start.
        placement: this rank and its device.
        steps: opens this rank's stream of data at a cursor.
        supervision: receives the rank's reports.
    """
    context = RankContext(job, placement, supervision)
    if job.replay is None:
        return build_trainer(context, steps)
    # Imported late, because it imports the step inspector.
    from trainer.assembly.replay import build_replay

    if job.replay.url:
        register_copy(job.run, job.replay.url)

    return build_replay(context, steps)
