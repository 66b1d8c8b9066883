"""Construction of one rank of a run or of a replay."""

from collections.abc import Callable, Iterator

from data_pipeline.batching.plan import Cursor
from data_pipeline.batching.stream import RankStep
from trainer.assembly.run import build_trainer
from trainer.checkpoints.run_copies import register_copy
from trainer.job.rank_job import RankJob
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

    See `build_trainer` for the arguments.
    """
    if job.replay is None:
        return build_trainer(job, placement=placement, steps=steps, supervision=supervision)
    # Imported late, because it imports the step inspector.
    from trainer.assembly.replay import build_replay

    if job.replay.url:
        register_copy(job.run, job.replay.url)

    return build_replay(job, placement=placement, steps=steps, supervision=supervision)
