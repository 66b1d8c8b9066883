"""Steps whose loss or gradient is not a finite number: not applied, recorded, and few."""

from data_pipeline.feeding.plan import slots_of_rank
from data_pipeline.feeding.stream import RankStep
from trainer.checkpoints.format import list_checkpoints
from trainer.distributed import Placement
from trainer.errors import NonFiniteLossError
from trainer.metrics import Line
from trainer.progress import Progress
from trainer.recipe import TrainingRecipe
from trainer.run_folder import RunFolder
from trainer.step_report import StepReport


def skipped_line(
    progress: Progress, data: RankStep, report: StepReport, placement: Placement
) -> Line:
    """The record's line of a step that was not applied: where its data lies, and who computed it.

    No slots are named if each was finite and only the sum of the gradients was not.
    """
    ranks = placement.world_size
    slots = len(report.slot_digests)
    dealt = {slot: rank for rank in range(ranks) for slot in slots_of_rank(rank, ranks, slots)}
    return {
        "step": progress.step,
        "kind": "skipped",
        "slots": report.bad_slots,
        "ranks": sorted({dealt[slot] for slot in report.bad_slots}),
        "in_a_row": progress.skipped_in_a_row,
        "skipped_steps": progress.skipped_steps,
        **data.cursor.to_json(),
        "data_digest": progress.data_digest,
    }


def require_few_skipped(recipe: TrainingRecipe, run: RunFolder, line: Line) -> None:
    """All ranks have the same line, so either all go on or all raise.

    Raises:
        NonFiniteLossError: too many steps in a row were skipped.
    """
    limit = recipe.trainer.stop_after_skipped_steps
    if line["in_a_row"] < limit:
        return
    newest = list_checkpoints(run.checkpoints)[-1:]
    raise NonFiniteLossError(
        f"{line['in_a_row']} steps in a row, up to step {line['step']}, had a loss or gradient "
        f"that is not finite (the last one in {_place(line)}); none of them was applied. The "
        f"newest good checkpoint is {newest[0] if newest else 'none'}. A new run from it "
        "(trainer.init_from) with a lower learning rate or trainer.gradient_clipping may get "
        f"further; trainer.stop_after_skipped_steps is {limit}"
    )


def _place(line: Line) -> str:
    where = f"epoch {line['epoch']}, window {line['window']}, micro-batch {line['offset']}"
    if line["slots"]:
        return f"slots {line['slots']} of ranks {line['ranks']}, data from {where}"
    return f"the sum of all slots, data from {where}"
