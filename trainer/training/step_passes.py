"""Forward and backward passes of a step on one rank.

    slots of the rank         ──▶ gradients of the step; digests of the slots that are checked
    slot of another rank      ──▶ digests alone, if a check is due
    dummy                     ──▶ nothing; it makes the number of passes equal on all ranks

Each pass depends on seed, step and slot alone, so any rank computes the same bits for a slot if
numerics are exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from data_pipeline.batching.batch import MicroBatch
from data_pipeline.batching.stream import RankStep
from trainer.process.placement import Placement
from trainer.tasks.batch import DeviceBatch
from trainer.tasks.randomness import seed_torch
from trainer.tasks.task import TrainingTask
from trainer.training.slot_checks import SlotChecks, StepChecks
from trainer.zero.engine import PassResult, TrainingEngine


@dataclass
class StepResults:
    """Results of a rank's passes of a step.

    Attributes:
        checks: the checks of the step.
        batches: the micro-batches of the rank's slots.
        results: the results of the slots.
        digests: `PassResult.digests` by slot, for the checks.
    """

    checks: StepChecks
    batches: list[DeviceBatch] = field(default_factory=list)
    results: list[PassResult] = field(default_factory=list)
    digests: dict[int, torch.Tensor] = field(default_factory=dict)


class StepPasses:
    """Runner of one rank's passes."""

    def __init__(
        self,
        engine: TrainingEngine,
        task: TrainingTask,
        *,
        seed: int,
        placement: Placement,
        checks: SlotChecks | None = None,
    ) -> None:
        """Store the parts of the rank.

        Args:
            engine: runs the passes.
            task: creates the batches.
            seed: the seed of the run.
            placement: this rank.
            checks: the comparisons of slots with other ranks; None for none.
        """
        self._engine = engine
        self._task = task
        self._seed = seed
        self._device = placement.torch_device
        self._checks = checks
        self._dummy = task.dummy(self._device)

    def run(self, step: int, data: RankStep) -> StepResults:
        """Run the passes of a step; the same number of passes on every rank."""
        checks = self._checks.of_step(step) if self._checks else StepChecks()
        found = StepResults(checks)
        verified = checks.verified_slot
        # Request the verified slot's data now: it arrives while this rank computes its own slots.
        requested = None if verified is None else data.request(verified)
        passes = self._engine.slots_per_rank + checks.extra_passes
        for index in range(passes):
            is_last = index == passes - 1
            slot: int | None
            if index < len(data.slots):
                slot = data.slots[index]
                digested = checks.is_digested(slot)
                # Time only these passes: dummies and checks are no work to compare between ranks.
                with self._engine.timer.compute():
                    batch = self._collate(data.micro_batches[index])
                    result = self._pass(step, data, slot, batch, is_last, is_digested=digested)
                found.batches.append(batch)
                found.results.append(result)
            else:
                slot, batch = verified, self._collate(requested()) if requested else self._dummy
                digested = slot is not None
                result = self._pass(
                    step, data, slot, batch, is_last, is_dummy=True, is_digested=digested
                )
            if slot is not None and result.digests is not None:
                found.digests[slot] = result.digests
        return found

    def repeat(self, step: int, data: RankStep, slots: Sequence[int]) -> dict[int, torch.Tensor]:
        """Compute any slots of a step, discard their gradients, and return their digests.

        All ranks call this with the same slots, after they have discarded the step's gradients.
        """
        requested = [data.request(slot) for slot in slots]
        digests = {}
        for slot, micro_batch in zip(slots, requested, strict=True):
            batch, is_last = self._collate(micro_batch()), slot == slots[-1]
            result = self._pass(step, data, slot, batch, is_last, is_dummy=True, is_digested=True)
            assert result.digests is not None
            digests[slot] = result.digests
        self._engine.discard_gradients()
        return digests

    def _collate(self, micro_batch: MicroBatch) -> DeviceBatch:
        return self._task.collate_for_training(micro_batch, self._device)

    def _pass(
        self,
        step: int,
        data: RankStep,
        slot: int | None,
        batch: DeviceBatch,
        is_last: bool,
        *,
        is_dummy: bool = False,
        is_digested: bool = False,
    ) -> PassResult:
        if slot is not None:
            seed_torch(self._seed, "dropout", step, slot)
        return self._engine.forward_backward(
            batch,
            units_global=data.units,
            is_accumulation_boundary=is_last,
            is_dummy=is_dummy,
            is_digested=is_digested,
        )
