"""Steps whose loss or gradient is not finite: they are not applied, recorded, and must be few."""

from data_pipeline.batching.plan import slots_of_rank
from data_pipeline.batching.stream import RankStep
from foundation.wording import counted
from trainer.rank.placement import Placement
from trainer.record.records import SkippedLine
from trainer.state.progress import Progress
from trainer.training.step_exchange import StepReport


def skipped_line(
    progress: Progress, data: RankStep, report: StepReport, placement: Placement
) -> SkippedLine:
    """The record's line of a step that was not applied: where its data lies, and who computed it.

    It names no slots if each was finite and only the sum of the gradients was not.
    """
    ranks = placement.world_size
    slots = len(report.slot_digests)
    dealt = {slot: rank for rank in range(ranks) for slot in slots_of_rank(rank, ranks, slots)}
    return SkippedLine(
        step=progress.step,
        **data.cursor.to_json(),
        data_digest=progress.data_digest,
        slots=report.bad_slots,
        ranks=sorted({dealt[slot] for slot in report.bad_slots}),
        in_a_row=progress.skipped_in_a_row,
        skipped_steps=progress.skipped_steps,
    )


def too_many_skipped(line: SkippedLine) -> str:
    """Why a run ends with this line. All ranks have the same line, so all of them end."""
    return (
        f"{counted(line.in_a_row, 'step')} in a row, up to step {line.step}, had a loss or "
        f"gradient that is not finite (the last one in {_place(line)}); none of them was applied. "
        "A new run from the newest checkpoint (trainer.init_from) with a lower learning rate or "
        "trainer.gradient_clipping may get further; trainer.stop_after_skipped_steps is "
        f"{line.in_a_row}"
    )


def _place(line: SkippedLine) -> str:
    if line.slots:
        return f"slots {line.slots} of ranks {line.ranks}, data from {line.cursor}"
    return f"the sum of all slots, data from {line.cursor}"
