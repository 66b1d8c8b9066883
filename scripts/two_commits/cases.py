"""Cases of `scripts/same_bits`: the datasets and runs that both commits make.

The recipes are built-in ones, with a small model and few steps. Both commits run a case at the same
time, each in its own folder, because no case measures time.

Stages, ranks, numerics and precisions are covered in pairs: any two values of two of these settings
occur together in some case. Impossible cases are omitted: bf16 with stage 0, and exact bf16 in
stage 3 with 3 ranks.
"""

import json
import shutil
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from two_commits.checkout import Checkout, CheckoutError
from two_commits.comparison import Comparison, compare_datasets, compare_runs

SMALL = (
    "model.width=32",
    "model.feed_forward_width=64",
    "model.encoder_layers=1",
    "model.decoder_layers=1",
    "model.dropout=0.1",
    "batching.max_tokens_per_micro_batch=128",
    "batching.micro_batches_per_step=5",
    "trainer.gradient_clipping=1.0",
    # An untrained model translates up to the maximum length.
    "decoding.max_length_factor=0.2",
    "decoding.max_extra_length=2",
    "tracking.wandb=disabled",
    "cluster.cpus_per_rank=0.5",  # so that three ranks fit on two cores
    "cluster.warm_spares=false",
    "checkpoints.keep_last=1000",
)
STEPS, HALF = 8, 4
LONG, STRUCK_AT = 100, 15  # number of steps, enough so that the kill comes before the end
ATTEMPTS_TO_KILL = 3
ATTEMPTS_TO_START = 5
POLL_SECONDS = 0.01

PHRASES = "source: 'builtin:phrasebook/{0}.fr', target: 'builtin:phrasebook/{0}.en'"
SAMPLING = "tokenizer.sampling.alpha=0.1"
# Thresholds near the median, which a normal step exceeds.
SPIKES = (
    "trainer.spike_guard={window: 3, minimum_steps: 2, loss_deviations: 0.01, "
    "norm_deviations: 0.01}",
    "trainer.stop_after_skipped_steps=8",
)
FROZEN = "trainer.frozen=['encoder.*']"
CHECKS = "engine.verify_every_steps=2"


@dataclass(frozen=True)
class Dataset:
    """Name of a recipe, and overrides that make another dataset from it."""

    recipe: str
    options: tuple[str, ...] = ()
    is_multi30k: bool = False


DATASETS = {
    "phrasebook": Dataset("phrasebook"),
    "two-corpora": Dataset(
        "phrasebook",
        (
            f"data.train=[{{{PHRASES.format('train')}, name: many, weight: 1}}, "
            f"{{{PHRASES.format('test')}, name: few, weight: 3}}]",
            "data.tests={}",
            "tokenizer.joint=false",
            "model.share_embeddings=decoder",
        ),
    ),
    "multi30k": Dataset("multi30k-ende", is_multi30k=True),
}

What = Literal["trained", "killed", "continued"]


@dataclass(frozen=True)
class Case:
    """Run that both commits train, at the same time or in turn."""

    name: str
    dataset: str
    options: tuple[str, ...]
    ranks: int
    what: What = "trained"
    under_ray: bool = True
    is_quick: bool = False


def _shape(
    stage: int, ranks: int, numerics: str, precision: str, dataset: str = "phrasebook"
) -> Case:
    return Case(
        name=f"{dataset}-stage{stage}-{ranks}x-{numerics}-{precision}",
        dataset=dataset,
        options=(
            f"engine.zero_stage={stage}",
            f"engine.numerics={numerics}",
            f"engine.precision={precision}",
        ),
        ranks=ranks,
        under_ray=ranks > 1 or dataset != "phrasebook",
        is_quick=(stage, ranks) in ((1, 1), (2, 2)) and dataset == "phrasebook",
    )


FAST_2X = ("engine.zero_stage=2", "trainer.ema_decay=0.9", SAMPLING)
CASES = [
    _shape(0, 1, "fast", "fp32"),
    _shape(0, 2, "exact", "fp32"),
    _shape(0, 3, "fast", "fp32"),
    _shape(1, 1, "exact", "bf16"),
    _shape(1, 2, "fast", "fp32"),
    _shape(1, 3, "fast", "bf16"),
    _shape(2, 1, "fast", "bf16"),
    _shape(2, 2, "exact", "bf16"),
    _shape(2, 3, "exact", "fp32"),
    _shape(3, 1, "exact", "fp32"),
    _shape(3, 2, "fast", "bf16"),
    _shape(3, 3, "exact", "fp32"),
    Case("moving-average", "phrasebook", ("trainer.ema_decay=0.9", "engine.zero_stage=3"), 2),
    Case("bpe-dropout", "phrasebook", (SAMPLING,), 1, under_ray=False, is_quick=True),
    Case("two-corpora", "two-corpora", (SAMPLING,), 1, under_ray=False),
    Case("spikes-skipped-and-parts-frozen", "phrasebook", (*SPIKES, FROZEN), 2),
    Case(
        "layers-compiled",
        "phrasebook",
        ("engine.compile=layers", "engine.numerics=exact"),
        2,
    ),
    Case("slots-checked", "phrasebook", ("engine.numerics=exact", CHECKS), 2),
    _shape(1, 1, "fast", "fp32", "multi30k"),
    _shape(2, 2, "exact", "bf16", "multi30k"),
    Case("killed-and-resumed", "phrasebook", FAST_2X, 2, "killed"),
    Case("begun-by-base-continued-here", "phrasebook", FAST_2X, 2, "continued", is_quick=True),
]


class Sides:
    """Both commits, and the cases that they run at the same time."""

    def __init__(self, base: Checkout, here: Checkout, multi30k: Path | None) -> None:
        self.base, self.here = base, here
        self._multi30k = multi30k

    def prepare(self, name: str) -> Comparison:
        """Prepare a dataset with each commit, and compare the two."""

        def prepare(side: Checkout) -> None:
            side.transloom("prepare", DATASETS[name].recipe, *self._data_options(side, name))

        self._both(lambda: prepare(self.base), lambda: prepare(self.here))
        return compare_datasets(*(dataset_of(side, name) for side in (self.base, self.here)))

    def run(self, case: Case) -> Comparison:
        """Train a case with both commits, at the same time or in turn, and compare the runs."""
        steps = LONG if case.what == "killed" else STEPS
        train = self._train_and_kill if case.what == "killed" else self._train
        runs = [side.work / case.name for side in (self.base, self.here)]

        def begin_and_continue() -> None:
            begun = self.base.work / f"{case.name}-begun"
            self._train(self.base, case, begun, HALF)
            shutil.copytree(begun, runs[1])
            self._train(self.here, case, runs[1], steps, data_of=self.base)

        def train_here() -> None:
            train(self.here, case, runs[1], steps)

        second = begin_and_continue if case.what == "continued" else train_here
        self._both(lambda: train(self.base, case, runs[0], steps), second)
        return compare_runs(*runs)

    def _train(
        self,
        side: Checkout,
        case: Case,
        run: Path,
        steps: int,
        data_of: Checkout | None = None,
    ) -> None:
        _finish(side, self.command_of(case, run, steps, data_of or side), run)

    def _train_and_kill(self, side: Checkout, case: Case, run: Path, steps: int) -> None:
        """Kill the driver after it has recorded some steps, and continue with the same command."""
        command = self.command_of(case, run, steps, side)
        for _ in range(ATTEMPTS_TO_KILL):
            process = side.begin_transloom(*command)
            while process.poll() is None and recorded_steps(run) < STRUCK_AT:
                time.sleep(POLL_SECONDS)
            process.kill()
            is_over = process.wait() != -signal.SIGKILL
            if not is_over and not list(run.glob(f"checkpoints/step-*{steps}")):
                _finish(side, command, run)
                return
            shutil.rmtree(run, ignore_errors=True)
        raise CheckoutError(
            f"{side.name}: {ATTEMPTS_TO_KILL} runs of {steps} steps failed, or ended before they "
            f"could be killed after step {STRUCK_AT}: see {side.log} (kept with --keep)"
        )

    def command_of(self, case: Case, run: Path, steps: int, data_of: Checkout) -> list[str | Path]:
        """Return the arguments of `transloom` that train a case on the dataset of one commit."""
        every = 10 if case.what == "killed" else HALF
        command: list[str | Path] = [
            "train",
            DATASETS[case.dataset].recipe,
            *self._data_options(data_of, case.dataset),
            *SMALL,
            *case.options,
            f"trainer.max_steps={steps}",
            f"trainer.validate_every_steps={max(every, steps // 2)}",
            f"checkpoints.every_steps={every}",
            "--run",
            run,
        ]
        return (
            [*command, f"cluster.ranks={case.ranks}"] if case.under_ray else [*command, "--inline"]
        )

    def _data_options(self, side: Checkout, name: str) -> list[str]:
        dataset = DATASETS[name]
        options = [*dataset.options, f"data.dataset={dataset_of(side, name)}"]
        return [*options, f"data.mirror={self._multi30k}"] if dataset.is_multi30k else options

    def _both(self, first: Callable[[], None], second: Callable[[], None]) -> None:
        """Run both functions at the same time; if both fail, raise the error of the first one."""
        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(first), pool.submit(second)]:
                done.result()


def _finish(side: Checkout, command: list[str | Path], run: Path) -> None:
    """Train a run to its end.

    If the command fails before its first step, run it again: Ray gives its processes 30 seconds to
    start, which is too little on a busy machine.
    """
    for attempt in range(1, ATTEMPTS_TO_START + 1):
        before = recorded_steps(run)
        try:
            side.transloom(*command)
            return
        except CheckoutError:
            if attempt == ATTEMPTS_TO_START or recorded_steps(run) > before:
                raise


def dataset_of(side: Checkout, name: str) -> Path:
    return side.work / "datasets" / name


def recorded_steps(run: Path) -> int:
    """Return the last step in a record that is being written, or 0 if it has no step."""
    try:
        lines = (run / "metrics.jsonl").read_text().split("\n")[:-1]
    except FileNotFoundError:
        return 0
    return max((json.loads(line)["step"] for line in lines), default=0)
