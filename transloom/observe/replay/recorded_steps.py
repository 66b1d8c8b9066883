"""Recorded lines of the replayed steps, and the conditions under which the steps were trained.

After a restart, some steps are trained again. If the new result of such a step differs from the
step's line, the metrics file has an event with the new result. The later steps were computed from
the new result, so a replay is compared with the new result.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from run_store.checkpoints.format import CheckpointHeader
from run_store.errors import RunError
from run_store.folder import StepRange
from run_store.record.metrics_lines import (
    Line,
    ReplayMismatch,
    Resumed,
    SkippedLine,
    StepLine,
    TrainLine,
)
from trainer.state import numerics

# Continuable settings, or sections of settings, that do not affect training steps. A replay may
# include steps that were trained with different values of these settings.
CHANGES_NO_STEP = (
    "trainer.max_steps",
    "trainer.validate_every_steps",
    "trainer.early_stopping",
    "trainer.stop_after_skipped_steps",
    "trainer.validation_scores",
    "trainer.validation_samples",
    "checkpoints.",
    "decoding.",
)


@dataclass
class RecordedSteps:
    """Steps of a metrics file, and the restarts of the ranks.

    Attributes:
        lines: the line of each step, by step.
        partly_known: steps whose valid result is only in an event. The event lacks the gradient
            norm and the NLL (the loss without label smoothing).
        starts: the events of all starts of the ranks except the first, in order.
    """

    lines: dict[int, StepLine] = field(default_factory=dict)
    partly_known: set[int] = field(default_factory=set)
    starts: list[Resumed] = field(default_factory=list)

    @classmethod
    def of(cls, record: Iterable[Line]) -> "RecordedSteps":
        found = cls()
        for line in record:
            if isinstance(line, (TrainLine, SkippedLine)):
                found.lines[line.step] = line
            elif isinstance(line, Resumed):
                found.starts.append(line)
            elif isinstance(line, ReplayMismatch) and line.replayed_step in found.lines:
                before = found.lines[line.replayed_step]
                now = {name: values[1] for name, values in line.fields.items()}
                known = {name: now[name] for name in now if name in type(before).model_fields}
                found.lines[line.replayed_step] = before.model_copy(update=known)
                found.partly_known.add(line.replayed_step)
        return found

    def require_settings(self, first: int, last: int) -> dict[str, Any]:
        """Return the settings that the run changed after step `last`, each with its earlier value.

        Keys are dotted names. To replay the steps, apply these values to the recipe of the run's
        last start.

        Args:
            first: the first step that is trained again.
            last: the last step that is trained again.

        Raises:
            RunError: a setting that may affect a step was changed between these steps.
        """
        back: dict[str, Any] = {}
        for start in reversed(self.starts):
            for name, (then, now) in start.settings_changed.items():
                if name.startswith(CHANGES_NO_STEP):
                    continue
                if start.from_step >= last:
                    back[name] = then
                elif start.from_step >= first:
                    raise RunError(
                        f"Steps {first} to {last} were not all trained with the same settings: "
                        f"{name} was {then!r} up to step {start.from_step}, and {now!r} later. "
                        f"Replay only steps up to {start.from_step}, or only later steps, which "
                        f"needs a checkpoint of step {start.from_step}"
                    )
        return back

    def unknown_of(self, step: int) -> tuple[str, ...]:
        """Return the names of the fields of a step that the metrics file lacks or has damaged."""
        return ("nll", "grad_norm", "other_sums") if step in self.partly_known else ()

    def promise(
        self,
        before: CheckpointHeader | None,
        now: dict[str, Any],
        steps: StepRange,
    ) -> tuple[bool, str]:
        """Return a pair: True if a replay must be bit-identical, and the reason as text.

        Args:
            before: header of the checkpoint that the replay starts from, or of the run's first
                checkpoint if the replay starts at step 0; None without a checkpoint.
            now: the numerics fingerprint of the replay.
            steps: all steps that are trained again.
        """
        if before is None:
            return False, (
                "same data, but losses and weights are the same only up to rounding, because no "
                "checkpoint records the numerics with which the steps were trained"
            )
        start = steps.first - 1
        # Restarts from `start` that happened when `start` was the last recorded step. None of the
        # replayed steps was trained with a fingerprint from before these restarts.
        fresh = [s for s in self.starts if s.from_step == s.step == start]
        base = before.numerics | (_numerics(fresh[-1], 1) if fresh else {})
        held = [base]
        for other in self.starts:
            if other.from_step == start:  # the event's changes are relative to `before.numerics`
                held.append(before.numerics | _numerics(other, 1))
            elif start < other.from_step < steps.last:
                held += [base | _numerics(other, time) for time in (0, 1)]
        held += [base | {"ranks": number} for number in self._ranks_of(steps)]
        worst = next((f for f in held if not numerics.keeps_every_bit(f, now)), held[0])
        return numerics.keeps_every_bit(worst, now), numerics.promise(worst, now)

    def ranks_for_bits(
        self, before: CheckpointHeader | None, now: dict[str, Any], steps: StepRange
    ) -> int | None:
        """Return the number of ranks on which a replay of these steps would reproduce every bit.

        Return None if this replay already does, or if no other number of ranks would help. The
        arguments are the same as those of `promise`.
        """
        if self.promise(before, now, steps)[0]:
            return None
        ranks = self._ranks_of(steps)
        if len(ranks) == 1 and self.promise(before, now | {"ranks": ranks[0]}, steps)[0]:
            return ranks[0]
        return None

    def _ranks_of(self, steps: StepRange) -> list[int]:
        """Return the different numbers of ranks that trained these steps, in ascending order."""
        lines = (line for step, line in self.lines.items() if step in steps)
        return sorted({line.world_size for line in lines if isinstance(line, TrainLine)})


def _numerics(start: Resumed, time: Literal[0, 1]) -> dict[str, Any]:
    """Return the entries of the numerics fingerprint that a start changed.

    Args:
        time: 0 for the values before the start, 1 for those after it.
    """
    return {name: pair[time] for name, pair in start.numerics_changed.items()}
