"""Merge the ranks' reports about a replayed step: sort its examples by loss, and locate them."""

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from functools import reduce

from data_pipeline.batching.plan import slots_of_rank
from data_pipeline.dataset.manifest import Manifest
from run_store.record.metrics_lines import StepLine, TrainLine
from trainer.replay.rank_reports import RankActivationReport, RankExampleReport, RankStepReport
from trainer.replay.replay_report import ActivationRange, InspectedExample, InspectedStep


class ExampleLocations:
    """Locator of the shard and the corpus of an example, and of the rank that computed it."""

    def __init__(self, manifest: Manifest, micro_batches_per_step: int) -> None:
        self._manifest = manifest
        self._slots = micro_batches_per_step
        self._first = manifest.shards.first_pair.tolist()

    def example(self, seen: RankExampleReport, ranks: int, total: float | None) -> InspectedExample:
        """Return an example with its location.

        Args:
            seen: the example as a rank of the replay reported it.
            ranks: the number of ranks of the recorded run.
            total: the sum of the losses of all examples of the step; None if it is not finite.
        """
        shard = self._manifest.shards[bisect_right(self._first, seen.example) - 1]
        return InspectedExample(
            slot=seen.slot,
            rank=self._rank(seen.slot, ranks),
            corpus=self._manifest.corpora[shard.corpus].name,
            shard=shard.name,
            example=seen.example,
            start=seen.start,
            texts=seen.texts,
            tokens=seen.tokens,
            loss=seen.loss / max(1, seen.tokens) if seen.loss is not None else None,
            share=seen.loss / total if seen.loss is not None and total else None,
        )

    def _rank(self, slot: int, ranks: int) -> int:
        return next(r for r in range(ranks) if slot in slots_of_rank(r, ranks, self._slots))


def inspected_step(
    replayed: StepLine,
    recorded: StepLine | None,
    seen: Sequence[RankStepReport],
    places: ExampleLocations,
) -> InspectedStep:
    """Return the inspection of a step, merged from the reports of the replay's ranks.

    Args:
        replayed: the line of the step in the replay's metrics file.
        recorded: the line of the step in the run's metrics file; None if there is none.
        seen: the reports of the ranks; empty if the step was not inspected.
        places: the locator of the examples.
    """
    told = recorded or replayed
    ranks = told.world_size if isinstance(told, TrainLine) else len(seen) or 1
    parts = [example for part in seen for example in part.examples]
    losses = [example.loss for example in parts]
    total = None if None in losses else math.fsum(loss for loss in losses if loss is not None)
    examples = [places.example(example, ranks, total) for example in parts]
    return InspectedStep(
        step=replayed.step,
        loss=getattr(replayed, "loss", None),
        nll=getattr(replayed, "nll", None),
        grad_norm=getattr(replayed, "grad_norm", None),
        recorded_loss=getattr(recorded, "loss", None),
        recorded_grad_norm=getattr(recorded, "grad_norm", None),
        examples=sorted(examples, key=_largest_share_first),
        gradient_norms=_by_module([part.gradient_squares for part in seen]),
        activations=_ranges([part.activations for part in seen]),
    )


def _largest_share_first(example: InspectedExample) -> tuple[float, int, int]:
    """Return a sort key: losses that are not finite first, then losses in descending order.

    A loss that is not finite is the likely cause of a bad step.
    """
    loss = math.inf if example.loss is None else example.loss
    return -loss, example.slot, example.example


def _by_module(squares: Sequence[dict[str, float | None]]) -> dict[str, float | None]:
    """Return the gradient norm of each module, from the squared gradient norms of its parameters.

    A module's norm is None if one of its squares is not finite.
    """
    sums: dict[str, list[float | None]] = defaultdict(list)
    for part in squares:
        for parameter, square in part.items():
            sums[parameter.rpartition(".")[0] or parameter].append(square)
    return {
        module: None if None in found else math.sqrt(math.fsum(s for s in found if s is not None))
        for module, found in sums.items()
    }


def _ranges(
    parts: Sequence[dict[str, RankActivationReport | None]],
) -> dict[str, ActivationRange]:
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: _range([part[name] for part in parts if name in part]) for name in names}


def _range(parts: Sequence[RankActivationReport | None]) -> ActivationRange:
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):  # one of the ranks had outputs that were not finite
        return ActivationRange(minimum=None, maximum=None, mean=None, largest_magnitude=None)
    whole = reduce(RankActivationReport.plus, known)
    return ActivationRange(
        minimum=whole.minimum,
        maximum=whole.maximum,
        mean=whole.total / whole.count,
        largest_magnitude=max(abs(whole.minimum), abs(whole.maximum)),
    )
