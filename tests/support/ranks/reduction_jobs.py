"""Jobs for a `RankPool` with wrong reductions: see trainer/zero/reduction_check.py."""

import math
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import deepspeed
import torch
import torch.distributed as dist

from support.ranks.engine_jobs import LEARNING_RATE, Shape, accumulate, make_engine
from support.ranks.verify_jobs import CheckedRank, Setting
from trainer.process.placement import Placement
from trainer.zero.engine import TrainingEngine

IN_PLACE = ("all_reduce", "reduce")
REDUCTIONS = (*IN_PLACE, "reduce_scatter_tensor", "reduce_scatter")
RESULTS = ("tensor", "output_tensor", "output")  # names of the argument that receives the result
LEAST_ELEMENTS = 100  # minimum elements of a bucket of gradients


@dataclass(frozen=True)
class Reduction:
    """Result of a reduction on one rank.

    Attributes:
        result: the sum, which a fault may change in place.
        share: this rank's contribution to it; None if it contributed to more than its part of the
            sum.
        earlier: the result of the same reduction in the previous step.
    """

    result: torch.Tensor
    share: torch.Tensor | None
    earlier: torch.Tensor | None

    def chunk(self, drawn: random.Random) -> slice:
        begin, end = sorted(drawn.sample(range(len(self.result) + 1), 2))
        return slice(begin, end)


def flip_a_bit(found: Reduction, drawn: random.Random) -> None:
    width = 8 * found.result.element_size()
    bits = found.result.view(torch.int32 if width == 32 else torch.int16)
    bit = drawn.randrange(width)
    bits[drawn.randrange(len(bits))] ^= -(2**bit) if bit == width - 1 else 2**bit


def exchange_elements(found: Reduction, drawn: random.Random) -> None:
    """Exchange two elements in different blocks of a checksum."""
    elements = found.result
    nonzero = elements.nonzero().flatten()
    for _ in range(100):
        one, other = (int(nonzero[drawn.randrange(len(nonzero))]) for _ in range(2))
        if abs(one - other) > 64 and elements[one] != elements[other]:
            elements[[one, other]] = elements[[other, one]]
            return


def lose_a_share(found: Reduction, drawn: random.Random) -> None:
    """Remove this rank's share, or half of the sum, from a chunk, as if it had arrived too late."""
    chunk = found.chunk(drawn)
    share = found.result / 2 if found.share is None else found.share
    found.result[chunk] -= share[chunk]


def keep_an_older_chunk(found: Reduction, drawn: random.Random) -> None:
    """Replace a chunk by that of the previous step."""
    chunk = found.chunk(drawn)
    assert found.earlier is not None
    found.result[chunk] = found.earlier[chunk]


Fault = Callable[[Reduction, random.Random], None]
FAULTS: dict[str, Fault] = {
    "flipped bit": flip_a_bit,
    "exchanged elements": exchange_elements,
    "late partial sum": lose_a_share,
    "chunk of another step": keep_an_older_chunk,
}


@dataclass
class Wire:
    """Reductions of gradients on this rank, one of which may be wrong.

    Attributes:
        results: results of the last passes.
        earlier: results of the previous step.
        pending: the number of the wrong reduction, its fault, and its random numbers.
    """

    results: list[torch.Tensor] = field(default_factory=list)
    earlier: list[torch.Tensor] = field(default_factory=list)
    pending: tuple[int, Fault, random.Random] | None = None

    def begin_passes(self) -> None:
        self.results = []

    def end_step(self) -> None:
        self.earlier = self.results

    def plant(self, fault: Fault, drawn: random.Random) -> None:
        """Plant a fault in a reduction of the next passes, which have as many as the last ones."""
        self.pending = (drawn.randrange(len(self.results)), fault, drawn)

    @contextmanager
    def tapped(self) -> Iterator[None]:
        places = [(deepspeed.comm.comm.cdb, name) for name in REDUCTIONS] + [(dist, "all_reduce")]
        before = [(owner, name, getattr(owner, name)) for owner, name in places]
        # not empty within a call, because DeepSpeed's function calls torch's
        inside: list[bool] = []
        for owner, name, reduction in before:
            setattr(owner, name, self._tapped(name, reduction, inside))
        try:
            yield
        finally:
            for owner, name, reduction in before:
                setattr(owner, name, reduction)

    def _tapped(
        self, name: str, reduction: Callable[..., Any], inside: list[bool]
    ) -> Callable[..., Any]:
        def reduced(*arguments: Any, **options: Any) -> Any:
            tensors = [*arguments, *(options[key] for key in RESULTS if key in options)]
            result = tensors[0].detach().view(-1)
            is_gradient = result.is_floating_point() and result.element_size() < 8
            if inside or not is_gradient or result.numel() < LEAST_ELEMENTS:
                return reduction(*arguments, **options)
            share = result.clone() if name in IN_PLACE else None
            inside.append(True)
            work = reduction(*arguments, **options)
            inside.clear()
            if work is not None:
                work.wait()
            self._arrive(result, share)
            return work

        return reduced

    def _arrive(self, result: torch.Tensor, share: torch.Tensor | None) -> None:
        number = len(self.results)
        self.results.append(result.clone())
        if self.pending and self.pending[0] == number:
            _, fault, drawn = self.pending
            self.pending = None
            fault(Reduction(result, share, self.earlier[number]), drawn)


@dataclass(frozen=True)
class Planted:
    """Fault in a reduction of one rank; `seed` determines the reduction, elements and bits."""

    fault: str
    rank: int
    seed: int


def try_faults(
    placement: Placement, shape: Shape, faults: list[Planted]
) -> list[tuple[bool, list[str]]]:
    """Train two steps, and one per fault, with sums computed without it, with it, and again.

    Returns:
        For each fault, True if it has changed an element that this rank would have applied, and
        the result of `TrainingEngine.wrong_reductions`.
    """
    engine, wire, results = make_engine(placement, shape), Wire(), []
    with wire.tapped():
        for step, planted in enumerate([None, None, *faults], start=1):
            amax = _make_sums(engine, wire, step)
            right = _parts(engine)
            if planted:
                if planted.rank == placement.rank:
                    wire.plant(FAULTS[planted.fault], random.Random(planted.seed))
                changed = not _equal(_repeated(engine, wire, step), right)
                wrong = engine.wrong_reductions()
                results.append((changed, wrong))
                assert _equal(_repeated(engine, wire, step), right)
            assert engine.wrong_reductions() == []
            engine.step(LEARNING_RATE, amax)
            wire.end_step()
    engine.destroy()
    return results


def wrong_by_opposite_errors(placement: Placement, shape: Shape) -> list[str]:
    """Return the findings if an element of a sum is doubled on one rank, and 0 on the other."""

    def opposite(found: Reduction, _: random.Random) -> None:
        assert found.earlier is not None
        found.result[int(found.earlier.abs().argmax())] *= 2 * placement.rank

    engine, wire = make_engine(placement, shape), Wire()
    with wire.tapped():
        _make_sums(engine, wire, 1)
        right = _parts(engine)
        wire.end_step()
        wire.plant(opposite, random.Random(0))
        assert not _equal(_repeated(engine, wire, 1), right)
        wrong = engine.wrong_reductions()
    engine.destroy()
    return wrong


def _make_sums(engine: TrainingEngine, wire: Wire, step: int) -> torch.Tensor:
    """Accumulate the sums of a step on suitable grids; return `PassResult.amax`."""
    while True:
        wire.begin_passes()
        report, _ = accumulate(engine, step)
        if engine.refit(report.amax) is None:
            return report.amax


def _repeated(engine: TrainingEngine, wire: Wire, step: int) -> list[torch.Tensor]:
    """Discard the sums of a step, and compute them again."""
    engine._discard_sums()
    wire.begin_passes()
    accumulate(engine, step)
    return _parts(engine)


def _parts(engine: TrainingEngine) -> list[torch.Tensor]:
    return [part.clone() for _, _, part in engine.stage.owned_parts()]


def _equal(parts: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return all(torch.equal(*pair) for pair in zip(parts, others, strict=True))


def count_alarms(placement: Placement, shape: Shape, slots: int, steps: int) -> Counter[str]:
    """Train correct steps in the real loop, some of which are unusual.

    One in 20 steps is not finite. One in 20 has gradients a hundred times as large, which widens
    the grids, and which a spike guard may skip.

    Returns:
        The number of lines and events of each kind.
    """
    rank = CheckedRank(placement, Setting(shape, slots, every=0, guard=True), steps)
    rank.units = dict.fromkeys(range(7, steps, 20), math.nan)
    rank.units |= dict.fromkeys(range(13, steps, 20), 1)
    rank.trainer.train()
    rank.engine.destroy()
    kinds = [line.kind for line in rank.story.lines]
    return Counter([*kinds, *(name for name, *_ in rank.story.events)])
