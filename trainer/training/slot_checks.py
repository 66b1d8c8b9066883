"""Detection of silent data corruption: two ranks compute the same slot and compare digests.

    step due ──check_plan──▶ owner and verifier digest a slot ──exchange──▶ equal? ──▶ apply
                                                                   │ no
                                                                   ▼
                       every rank repeats the slot ──judge──▶ SilentCorruptionError on all ranks

With `numerics: exact`, healthy ranks compute the same bits for a slot. A step whose check fails is
never applied. The supervisor then restarts the ranks from a checkpoint, without the node of the
rank that was wrong.

A digest travels through the exchange of the step as two halves, each exact in a double. The owner
adds its halves and the verifier subtracts its halves, so the sum over the ranks is zero if the
digests are equal.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from foundation.wording import counted
from run_store.record.corruption import MAX_PARAMETERS, CorruptionFinding, SilentCorruptionError
from trainer.process.distributed import sum_over_ranks
from trainer.process.placement import Placement
from trainer.training.check_plan import (
    SlotCheck,
    checks_until_all,
    extra_passes,
    planned_checks,
)
from trainer.training.corruption_verdict import Dispute, judge

LOSS = "loss"  # name of the digest of the losses, which follows the parameters' digests
MAX_DISPUTES = 4  # a faulty rank causes two disputes; more occur if no rank can be trusted
_HALF = 32  # bits of half a digest


@dataclass(frozen=True)
class StepChecks:
    """Checks of one step, and one rank's part in them.

    Attributes:
        checks: the checks of all ranks; empty if none is due.
        rank: this rank.
        extra_passes: the number of passes that the checks add to the step of every rank.
        width: the number of digests of a slot.
    """

    checks: tuple[SlotCheck, ...] = ()
    rank: int = 0
    extra_passes: int = 0
    width: int = 0

    @property
    def verified_slot(self) -> int | None:
        """Slot of another rank that this rank repeats, or None."""
        return next((check.slot for check in self.checks if check.verifier == self.rank), None)

    def is_digested(self, slot: int) -> bool:
        """Return whether this rank must compute the digests of a slot."""
        return any(check.slot == slot for check in self.checks)

    def words(self, digests: Mapping[int, torch.Tensor]) -> np.ndarray | None:
        """Return this rank's share of the comparison, whose sum over the ranks shows differences.

        Args:
            digests: `PassResult.digests` of the digested slots.

        Returns:
            [checks, 2 × digests], or None if no check is due.
        """
        if not self.checks:
            return None
        halves = {slot: _halves(found) for slot, found in digests.items()}
        shares = []
        for check in self.checks:
            sign = (check.owner == self.rank) - (check.verifier == self.rank)
            shares.append(sign * halves[check.slot] if sign else np.zeros(2 * self.width))
        return np.array(shares)

    def failed(self, words: np.ndarray | None) -> list[SlotCheck]:
        """Return the checks whose digests differ.

        Args:
            words: the sum over the ranks of `words`.
        """
        if words is None:
            return []
        return [check for check, row in zip(self.checks, words, strict=True) if row.any()]


class SlotChecks:
    """Schedule of the checks of a run on one rank, and the verdict on a failed check."""

    def __init__(
        self,
        every_steps: int,
        *,
        slots: int,
        parameters: Sequence[str],
        placement: Placement,
        first_step: int = 0,
    ) -> None:
        """Create a schedule.

        Args:
            every_steps: `engine.verify_every_steps`.
            slots: the number of slots of a step.
            parameters: the names of the trained parameters.
            placement: this rank, and the nodes of all ranks.
            first_step: the step of the checkpoint that the ranks start from.
        """
        self._configured_steps = every_steps
        self._every_steps = every_steps if placement.world_size > 1 else 0
        self._slots = slots
        self._names = (*parameters, LOSS)
        self._placement = placement
        # By rank, the last step at which a check of the rank has passed.
        start = first_step // every_steps * every_steps if every_steps else 0
        self._passed = [start] * placement.world_size

    @property
    def schedule_text(self) -> str | None:
        """Notice about the checks of these ranks; None if checks are disabled."""
        if not self._configured_steps:
            return None
        ranks = self._placement.world_size
        if ranks == 1:
            return (
                f"engine.verify_every_steps is {self._configured_steps}, but a single rank has no "
                "other rank to compare with: silent data corruption is not detected"
            )
        if extra_passes(ranks, self._slots):
            return (
                f"every {counted(self._configured_steps, 'step')}, each rank repeats a slot of "
                "another rank to detect silent data corruption"
            )
        until = self._configured_steps * checks_until_all(ranks, self._slots)
        return (
            f"every {counted(self._configured_steps, 'step')}, ranks with fewer slots repeat slots "
            "of other ranks to detect silent data corruption; this needs no additional pass and "
            f"includes every rank within {counted(until, 'step')}"
        )

    def of_step(self, step: int) -> StepChecks:
        """Return the checks of a step."""
        if not self._every_steps or step % self._every_steps:
            return StepChecks()
        placement = self._placement
        ranks, number = placement.world_size, step // self._every_steps
        return StepChecks(
            tuple(planned_checks(number, ranks, self._slots, placement.node_ids)),
            placement.rank,
            extra_passes(ranks, self._slots),
            len(self._names),
        )

    def passed(self, step: int, checks: StepChecks) -> None:
        """Record that the checks of a step have passed."""
        for check in checks.checks:
            self._passed[check.owner] = self._passed[check.verifier] = step

    def error(
        self,
        step: int,
        failed: Sequence[SlotCheck],
        in_step: Mapping[int, torch.Tensor],
        repeated: Mapping[int, torch.Tensor],
    ) -> SilentCorruptionError:
        """Return the error that names the ranks that were wrong, equal on all ranks; a collective.

        Args:
            step: the step.
            failed: at most `MAX_DISPUTES` checks whose digests differ.
            in_step: the digests that this rank has computed in the step, by slot.
            repeated: the digests that every rank has computed afterwards, by slot.
        """
        placement = self._placement
        # [ranks, checks, in the step or repeated, digests]; every rank fills one row.
        table = torch.zeros(
            (placement.world_size, len(failed), 2, len(self._names)), dtype=torch.int64
        )
        for index, check in enumerate(failed):
            if placement.rank in (check.owner, check.verifier):
                table[placement.rank, index, 0] = in_step[check.slot].cpu()
            table[placement.rank, index, 1] = repeated[check.slot].cpu()
        digests = sum_over_ranks(table, placement).numpy()
        verdict = judge(
            [
                Dispute(
                    check,
                    owners=digests[check.owner, index, 0],
                    verifiers=digests[check.verifier, index, 0],
                    repeated=digests[:, index, 1],
                )
                for index, check in enumerate(failed)
            ]
        )
        names = placement.node_names or ("this node",) * placement.world_size
        return SilentCorruptionError(
            CorruptionFinding(
                checked_step=step,
                slots=verdict.slots,
                ranks=verdict.ranks,
                nodes=tuple(names[rank] for rank in verdict.ranks),
                parameters=tuple(self._names[index] for index in verdict.digests[:MAX_PARAMETERS]),
                parameter_count=len(verdict.digests),
                is_certain=verdict.is_certain,
                is_reproducible=verdict.is_reproducible,
                last_verified_step=min(self._passed[rank] for rank in verdict.ranks),
            )
        )


def _halves(digests: torch.Tensor) -> np.ndarray:
    """Return the signed upper and the unsigned lower half of each digest, as doubles."""
    values = digests.cpu().numpy()
    return np.concatenate([values >> _HALF, values & (2**_HALF - 1)]).astype(np.float64)
