"""Exchange of a step's results between the ranks: one table, summed over the ranks.

Each slot has a row of the table. A rank fills the rows of its slots and leaves all other rows zero,
so the sum is exact. Afterwards each rank has the exact values of all slots, and combines them in
slot order. All results (the loss, the data digest, the non-finite slots, a stop request) are
therefore the same on all ranks and for any number of ranks. The ranks have them before they apply
gradients.

A NaN would spread to all sums that include it. So the row of a non-finite slot has a flag, and
zeros instead of losses.

The rows also have the times of the ranks: computing, waiting and fetching data. They serve only the
comparison of the ranks.

This file also computes the fields of the metrics file that need only these sums: the rates of a
step, and the line of a skipped step.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from data_pipeline.batching.plan import slots_of_rank
from data_pipeline.batching.stream import RankStep
from foundation.wording import counted, join_items
from model.flops import Flops
from run_store.errors import RunError
from run_store.record.metrics_lines import SkippedLine
from trainer.errors import GuardError, NonFiniteLossError, SpikeError
from trainer.exact.grids import LARGEST
from trainer.process.distributed import sum_over_ranks
from trainer.process.placement import Placement
from trainer.process.step_timer import StepTimer
from trainer.registries.callbacks import RankTimes, Skip, StepView, Stop
from trainer.state.progress import Progress
from trainer.tasks.batch import DeviceBatch
from trainer.zero.engine import PassResult

_PADDING, _POSITIONS, _BAD, _MODEL_FLOPS, _HARDWARE_FLOPS = range(5)
# Seconds. The computing time of a slot is in its row, the other times of a rank are in the row of
# its first slot.
_COMPUTE, _WAIT, _DATA = range(5, 8)
_DIGEST = 8
_DIGEST_WORDS = 8  # 32 bytes as eight 32-bit words, each exact in a double
# First column of the passes' sums. The columns of the gradients' maxima follow the sums.
_SUMS = _DIGEST + _DIGEST_WORDS


@dataclass(frozen=True)
class StepReport:
    """Sums of a step over all slots; equal on all ranks."""

    sums: list[float]  # `PassResult.sums`, summed over the finite slots
    slot_losses: list[float]  # the first of `PassResult.sums` of each slot, 0 if it is not finite
    bad_slots: list[int]  # slots whose loss or gradients are not finite
    padding_fraction: float
    slot_digests: list[bytes]
    data_stall_seconds: float  # how long the ranks waited for data; mean over the ranks
    stop_requested: bool  # whether any rank was asked to stop
    flops: Flops | None = None  # operations of all slots; None if they are not counted
    peak_flops_per_second: float | None = None  # sum over the ranks; None if one peak is unknown
    # [slots, parameters]: `PassResult.amax` of each slot. None if a slot is not finite, or if
    # numerics are not exact.
    amax: np.ndarray | None = None
    rank_times: RankTimes | None = None  # None with one rank, and without a timer
    is_interrupted: bool = False  # whether other work affects the times, see `StepTimer.interrupt`
    check_words: np.ndarray | None = None  # sum of `StepChecks.words`; None if no check is due

    def view(self, step: int, data: RankStep, names: Sequence[str], rate: float) -> StepView:
        """Return the numbers of the step for callbacks.

        Args:
            step: the number of the step.
            data: the data of the step.
            names: the names of the sums; the first one is minimised.
            rate: the learning rate of the step.
        """
        sums = {name: sum / data.units for name, sum in zip(names, self.sums, strict=True)}
        return StepView(
            step=step,
            loss=sums[names[0]],
            sums=MappingProxyType(sums),
            units=data.units,
            learning_rate=rate,
            slot_losses=tuple(self.slot_losses),
            slot_units=tuple(data.slot_units),
        )


def exchange(
    slots: range,
    batches: list[DeviceBatch],
    results: list[PassResult],
    *,
    micro_batches_per_step: int,
    data_stall_seconds: float,
    stop_requested: bool,
    placement: Placement,
    peak_flops_per_second: float | None = None,
    timer: StepTimer | None = None,
    check_words: np.ndarray | None = None,
) -> StepReport:
    """Combine the results of all ranks' slots; a collective that every rank must call.

    Args:
        slots: the slots of this rank.
        batches: the micro-batches of these slots.
        results: the results of their passes.
        micro_batches_per_step: the number of slots of the step.
        data_stall_seconds: how long this rank waited for data.
        stop_requested: whether this rank was asked to stop.
        placement: this rank and the number of ranks.
        peak_flops_per_second: the peak of this rank's device, or None if it is unknown.
        timer: the timer of this rank, which has measured the passes; None if the passes were not
            timed.
        check_words: `StepChecks.words` of this rank; None, on all ranks alike, if no check is due.
    """
    timer = timer or StepTimer(placement)
    assert results, "a rank without slots"
    amax = [result.amax for result in results if result.amax is not None]
    maxima = _SUMS + len(results[0].sums)  # first column of the gradients' maxima
    table = np.zeros((micro_batches_per_step + 1, maxima + (len(amax[0]) if amax else 0)))
    losses = torch.stack([result.sums for result in results])
    finite = torch.stack([result.finite for result in results])[:, None]
    columns = [torch.where(finite, losses.double(), 0), ~finite]
    if amax:
        columns.append(torch.where(finite, torch.stack(amax).double(), 0))
    values = torch.cat(columns, dim=1).cpu().numpy()
    own, count = slice(slots.start, slots.stop), losses.shape[1]
    if amax:  # treat larger losses and gradients as not finite
        is_larger = (np.delete(values, [*range(1, count + 1)], axis=1) > LARGEST).any(axis=1)
        values[is_larger] = 0
        values[is_larger, count] = 1
    table[own, _SUMS:maxima] = values[:, :count]
    table[own, _BAD] = values[:, count]
    table[own, maxima:] = values[:, count + 1 :]
    for slot, batch in zip(slots, batches, strict=True):
        table[slot, [_PADDING, _POSITIONS]] = batch.padding, batch.positions
        table[slot, [_MODEL_FLOPS, _HARDWARE_FLOPS]] = batch.flops or (0, 0)
        table[slot, _DIGEST:_SUMS] = np.frombuffer(batch.digest, dtype="<u4")
    seconds = timer.take()  # after the copy of the losses to the host
    table[own, _COMPUTE] = seconds.compute or 0.0
    table[slots.start, [_WAIT, _DATA]] = seconds.wait, data_stall_seconds
    known = peak_flops_per_second is not None
    table[-1, :3] = stop_requested, known, peak_flops_per_second or 0.0
    with timer.wait():
        table, check_words = _summed(table, check_words, placement)
    rows, flags = table[:-1], table[-1]
    totals = np.add.accumulate(rows[:, :maxima], axis=0)[-1]  # sum in slot order, unlike np.sum
    flops = Flops(int(totals[_MODEL_FLOPS]), int(totals[_HARDWARE_FLOPS]))
    return StepReport(
        sums=totals[_SUMS:maxima].tolist(),
        slot_losses=rows[:, _SUMS].tolist(),
        bad_slots=np.flatnonzero(rows[:, _BAD]).tolist(),
        padding_fraction=float(totals[_PADDING] / totals[_POSITIONS]),
        slot_digests=[row.astype("<u4").tobytes() for row in rows[:, _DIGEST:_SUMS]],
        data_stall_seconds=float(totals[_DATA]) / placement.world_size,
        stop_requested=bool(flags[0] > 0),
        flops=flops if flops.model else None,
        peak_flops_per_second=float(flags[2]) if flags[1] == placement.world_size else None,
        amax=rows[:, maxima:] if amax and not rows[:, _BAD].any() else None,
        rank_times=_rank_times(rows, placement.world_size) if seconds.compute else None,
        is_interrupted=timer.take_interruption(),
        check_words=check_words,
    )


def _summed(
    table: np.ndarray, check_words: np.ndarray | None, placement: Placement
) -> tuple[np.ndarray, np.ndarray | None]:
    """Sum both arrays over the ranks in one collective."""
    if check_words is None:
        return sum_over_ranks(torch.from_numpy(table), placement).numpy(), None
    flat = np.concatenate([table.ravel(), check_words.ravel()])
    total = sum_over_ranks(torch.from_numpy(flat), placement).numpy()
    return (
        total[: table.size].reshape(table.shape),
        total[table.size :].reshape(check_words.shape),
    )


def _rank_times(rows: np.ndarray, ranks: int) -> RankTimes:
    """Return the times of all ranks, from the table's rows of all slots."""
    starts = _first_slots(ranks, len(rows))
    compute, wait, data = np.add.reduceat(rows[:, [_COMPUTE, _WAIT, _DATA]], starts, axis=0).T
    # If an extension's network does not count its operations, work is the number of positions.
    work = rows[:, _HARDWARE_FLOPS if rows[:, _HARDWARE_FLOPS].all() else _POSITIONS]
    # [ranks, slots]: the first slots of each rank, as many as every rank has.
    common = starts[:, None] + np.arange(len(rows) // ranks)
    seconds_per_work = rows[common, _COMPUTE].sum(axis=1) / work[common].sum(axis=1)
    times = RankTimes(compute, wait, data, seconds_per_work * work.sum() / ranks)
    for values in times:
        values.flags.writeable = False  # callbacks receive the arrays
    return times


@cache
def _first_slots(ranks: int, slots: int) -> np.ndarray:
    return np.array([slots_of_rank(rank, ranks, slots).start for rank in range(ranks)])


def throughput(report: StepReport, seconds: float, ranks: int) -> dict[str, Any]:
    """Return a step's floating-point operations and their rates.

    Args:
        report: the report of the step.
        seconds: the duration of the step.
        ranks: the number of ranks.

    Returns:
        Fields of a `TrainLine`; empty if operations are not counted.
    """
    if report.flops is None:
        return {}
    rate, peak = report.flops.model / seconds, report.peak_flops_per_second
    return {
        "model_flops": report.flops.model,
        "hardware_flops": report.flops.hardware,
        "tflops_per_second": rate / 1e12,
        "tflops_per_second_per_rank": rate / 1e12 / ranks,
        "mfu": None if peak is None else rate / peak,
    }


def skipped_line(
    progress: Progress,
    data: RankStep,
    report: StepReport,
    placement: Placement,
    decision: Skip | None = None,
    fields: Mapping[str, Any] = MappingProxyType({}),
) -> SkippedLine:
    """Return a skipped step's line of the metrics file, which names the causing slots and ranks.

    Args:
        progress: the progress after the step.
        data: the data of the step.
        report: the report of the step.
        placement: this rank and the number of ranks.
        decision: the decision of the guard that refused the step. None if it was not finite; the
            line names no slots if each slot was finite and only the sum of the gradients was not.
        fields: the fields that observers add.
    """
    ranks = placement.world_size
    count = len(report.slot_digests)
    dealt = {slot: rank for rank in range(ranks) for slot in slots_of_rank(rank, ranks, count)}
    slots = [*decision.slots] if decision else report.bad_slots
    return SkippedLine(
        step=progress.step,
        **data.cursor.to_json(),
        data_digest=progress.data_digest,
        slots=slots,
        ranks=sorted({dealt[slot] for slot in slots}),
        in_a_row=progress.skipped_in_a_row,
        skipped_steps=progress.skipped_steps,
        skipped_spikes=progress.skipped_spikes,
        **(decision.fields if decision else {}),
        **fields,
    )


def refusal_notice(line: SkippedLine, run: Path) -> str:
    """Return the notice about a step that a guard refused.

    Args:
        line: the line of the step.
        run: the folder of the run.
    """
    where = ""
    if line.slots:
        slots = f"{'slot' if len(line.slots) == 1 else 'slots'} {join_items(line.slots)}"
        where = f", with the largest loss in {slots}"
    return (
        f"step {line.step} is skipped, because {line.reason}{where}: "
        f"`transloom data trace {run} --steps {line.step} --texts` shows its sentences"
    )


def ending_error(line: SkippedLine, decision: Skip | None = None) -> RunError:
    """Return the error of a run that ends after this skipped step; equal on all ranks.

    Args:
        line: the line of the step.
        decision: the decision of the guard that refused the step; None if it was not finite.
    """
    slots = f"slots {line.slots} of ranks {line.ranks}"
    row = f"{counted(line.in_a_row, 'step')} in a row, up to step {line.step},"
    limit = f"trainer.stop_after_skipped_steps is {line.in_a_row}"
    restart = "start a new run from the newest checkpoint (trainer.init_from) with"
    if decision is None:
        where = f"in {slots}" if line.slots else "in the sum of all slots"
        return NonFiniteLossError(
            f"{row} had a loss or gradient that is not finite, and were not applied. In the last "
            f"step, the non-finite value was {where}, with data from {line.cursor}. The run ends, "
            f"because {limit}. {restart.capitalize()} a lower learning rate or with "
            "trainer.gradient_clipping"
        )
    error = SpikeError if line.cause == "spike" else GuardError
    where = f"Its largest loss is in {slots}, with" if line.slots else "It has"
    remedies = (
        f"{restart} a lower learning rate, with trainer.gradient_clipping, or with "
        f"{decision.remedy}"
    )
    if isinstance(decision, Stop):
        return error(
            f"Step {line.step} was not applied, and a guard ends the run, because {line.reason}. "
            f"{where} data from {line.cursor}. To train past this step, {remedies}"
        )
    return error(
        f"{row} were not applied. The last one was refused, because {line.reason}. {where} data "
        f"from {line.cursor}. The run ends, because {limit}. If only these steps have such data, "
        f"raise this field and continue the run. Otherwise, {remedies}"
    )
