"""Cost of checks for silent data corruption: steps with and without a check, on two ranks.

Two processes of one thread each, with the environment of a rank; the tiny and the base model on
synthetic micro-batches of equal sentences. The ranks divide 8 slots evenly, so a check needs an
additional pass; with 7 slots, it uses the pass of a dummy. The checksums of
`engine.verify_reductions` are measured with 8 slots, too. Steps with and without a check alternate
in one engine. The figure is the ratio of their CPU time on rank 0, the median of the pairs, which
depends little on other processes.

`passes` is the cost in passes of one slot, (ratio - 1) × slots of a rank: 1.1 is expected for a
check with an additional pass, and 0 for a check that uses a dummy. A run that checks every N steps
spends passes / (slots of a rank × N) of its time on checks. Checksums are computed in every step.

    .venv/bin/python benchmarks/verify_cost.py [--pairs N] [--sums]
"""

import multiprocessing
import os
import statistics
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from benchmarks.finite_flag import MODELS, VOCABULARY, micro_batch
from benchmarks.support.as_rank import restart_in_rank_environment
from benchmarks.support.command_line import benchmark_parser, names_from, parse_arguments
from benchmarks.support.engine_step import transformer_engine
from data_pipeline.batching.batch import MicroBatch
from data_pipeline.batching.plan import Cursor, slots_of_rank
from data_pipeline.batching.stream import RankStep
from trainer.config import EngineConfig
from trainer.process.distributed import process_group
from trainer.process.placement import Placement
from trainer.tasks.batch import PairBatch, to_device
from trainer.training.slot_checks import SlotChecks
from trainer.training.step_exchange import exchange
from trainer.training.step_passes import StepPasses

RANKS = 2
WARM_UP = 2  # number of pairs of steps
PASSES = 4  # passes of a rank in a step without a check, with 8 slots and with 7
CASES = (("a slot", 8), ("a slot", 7), ("the sums", 8))  # kind of check, and slots of a step


class OneBatch:
    """Parts of a task that a pass needs."""

    def collate_for_training(self, batch: MicroBatch, device: torch.device) -> PairBatch:
        return to_device(batch, VOCABULARY, device)

    def dummy(self, device: torch.device) -> PairBatch:
        return to_device(micro_batch(25), VOCABULARY, device)


class Steps:
    """Engine whose steps alternate: every second step has a check."""

    def __init__(
        self, model: str, precision: Any, check: str, slots: int, placement: Placement
    ) -> None:
        config, tokens = MODELS[model]
        every = 2 if check == "a slot" else 0
        self._slots, self._placement = slots, placement
        self._batch = micro_batch(tokens)
        settings = EngineConfig(
            precision=precision,
            numerics="exact",
            verify_every_steps=every,
            verify_reductions=not every,
        )
        self.engine = transformer_engine(config, VOCABULARY, settings, slots, placement)
        task: Any = OneBatch()
        checks = SlotChecks(every, slots=slots, parameters=self.engine.trained, placement=placement)
        self._checks_slots = bool(every)
        assert self.engine.grids
        self._checksums = self.engine._reductions, self.engine.grids.observe
        self._passes = StepPasses(self.engine, task, seed=1, placement=placement, checks=checks)

    def seconds_of(self, step: int) -> float:
        """Return the CPU seconds of a step, and require that its check passes."""
        if not self._checks_slots:
            self._verify_sums(step % 2 == 0)
        started = time.process_time()
        own = slots_of_rank(self._placement.rank, RANKS, self._slots)
        units = (self._batch.tokens("tgt"),) * self._slots
        data = RankStep(
            own,
            [self._batch] * len(own),
            units,
            Cursor(),
            Cursor(),
            lambda slot: lambda: self._batch,
        )
        while True:
            passed = self._passes.run(step, data)
            report = exchange(
                own,
                passed.batches,
                passed.results,
                micro_batches_per_step=self._slots,
                data_stall_seconds=0.0,
                stop_requested=False,
                placement=self._placement,
                check_words=passed.checks.words(passed.digests),
            )
            assert (report.check_words is not None) == (self._checks_slots and step % 2 == 0)
            assert not passed.checks.failed(report.check_words)
            if self.engine.refit(report.amax) is None:
                break
        assert not self.engine.wrong_reductions()
        self.engine.step(1e-4, report.amax)
        return time.process_time() - started

    def _verify_sums(self, on: bool) -> None:
        """Turn the engine's checksums on or off."""
        assert self.engine.grids
        self.engine._reductions, self.engine.grids.observe = self._checksums if on else (None, None)


def measure(
    rank: int,
    rendezvous: str,
    model: str,
    precision: str,
    case: tuple[str, int],
    pairs: int,
    results: Any,
) -> None:
    """Run one rank; rank 0 sends the CPU seconds of pairs of steps through the queue."""
    placement = Placement(
        rank=rank, world_size=RANKS, local_rank=rank, local_world_size=RANKS, rendezvous=rendezvous
    )
    with process_group(placement, timedelta(minutes=5)):
        steps = Steps(model, precision, *case, placement)
        taken = [steps.seconds_of(step) for step in range(1, 2 * (WARM_UP + pairs) + 1)]
        steps.engine.destroy()
    if rank == 0:
        results.put(list(zip(taken[::2], taken[1::2], strict=True))[WARM_UP:])


def pairs_of(
    model: str, precision: str, case: tuple[str, int], pairs: int
) -> list[tuple[float, float]]:
    """Return CPU seconds of steps without and with a check, in two new processes."""
    context = multiprocessing.get_context("spawn")
    results: Any = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        rendezvous = f"file://{Path(folder) / 'rendezvous'}"
        given = (rendezvous, model, precision, case, pairs, results)
        ranks = [context.Process(target=measure, args=(rank, *given)) for rank in range(RANKS)]
        for process in ranks:
            process.start()
        found: list[tuple[float, float]] = results.get(timeout=3600)
        for process in ranks:
            process.join()
    return found


def main() -> None:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--models", type=names_from(MODELS), default=list(MODELS))
    parser.add_argument("--precisions", type=names_from(("fp32", "bf16")), default=["fp32", "bf16"])
    parser.add_argument("--sums", action="store_true", help="measure the checksums only")
    arguments = parse_arguments(parser, smoke="--pairs 1 --models tiny --precisions fp32")
    restart_in_rank_environment()
    print(f"load {os.getloadavg()[0]:.1f}")
    columns = (
        "precision | check of | slots | ms a step | with a check | ratio | 50 % range | passes"
    )
    print(f"| model | {columns} |")
    print("|---|---|---|---|---|---|---|---|---|")
    for model in arguments.models:
        for precision in arguments.precisions:
            for check, slots in CASES[2:] if arguments.sums else CASES:
                found = pairs_of(model, precision, (check, slots), arguments.pairs)
                plain, checked = (statistics.median(kind) for kind in zip(*found, strict=True))
                ratios = sorted(checked / plain for plain, checked in found)
                ratio = statistics.median(ratios)
                low, high = ratios[len(ratios) // 4], ratios[3 * len(ratios) // 4]
                print(
                    f"| {model} | {precision} | {check} | {slots} | {1000 * plain:.0f} "
                    f"| {1000 * checked:.0f} | {ratio:.3f} | {low:.3f}–{high:.3f} "
                    f"| {(ratio - 1) * PASSES:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
