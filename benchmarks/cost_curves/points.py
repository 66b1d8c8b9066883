"""One point of a cost curve: a model and a micro-batch, and what a step of theirs costs.

Time is CPU time of the one thread that computes, which others on the machine hardly change. Memory
is the peak during a step, over what the process had before. A step of one token comes first, so
that what a first step allocates for good is not counted. As a script this measures the memory of
the point that it is given, in a process of its own.
"""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from benchmarks.support.datasets import equal_sentences
from model.config.transformer import AttentionBackend, ModelConfig
from model.networks.transformer import Vocabulary
from trainer.config import EngineConfig
from trainer.process.distributed import process_group
from trainer.process.host_memory import peak_resident_bytes, resident_bytes, restart_peak
from trainer.process.placement import Placement

if TYPE_CHECKING:
    from trainer.zero.engine import TrainingEngine

VOCABULARY = Vocabulary(1000, 1000, pad_id=0, bos_id=1, eos_id=2)
PLACEMENT = Placement()
Precision = Literal["fp32", "bf16"]
PROCESSES_AT_ONCE = 2  # where memory is measured: their speed does not matter


@dataclass(frozen=True)
class Setting:
    """The settings of a curve: all but the number on its x axis."""

    precision: Precision
    backend: AttentionBackend | None = None
    checkpointing: bool = False

    @property
    def name(self) -> str:
        parts = [self.precision, *([self.backend.value] if self.backend else [])]
        return ", ".join([*parts, *(["checkpointing"] if self.checkpointing else [])])


@dataclass(frozen=True)
class Point:
    """One model and one micro-batch; `x` is its place in its table."""

    setting: Setting
    x: int
    sentences: int
    length: int  # of each sentence on either side, EOS included
    layers: int = 2  # of each stack
    width: int = 128


def one_rank() -> AbstractContextManager[None]:
    return process_group(PLACEMENT, timedelta(minutes=1))


def build(point: Point) -> "TrainingEngine":
    # DeepSpeed looks for a device when it is imported, unless the process group has named one.
    from benchmarks.support.engine_step import transformer_engine

    setting = point.setting
    config = ModelConfig(
        encoder_layers=point.layers,
        decoder_layers=point.layers,
        width=point.width,
        feed_forward_width=2 * point.width,
        heads=4,
    )
    settings = EngineConfig(
        precision=setting.precision,
        attention=setting.backend,
        activation_checkpointing=setting.checkpointing,
    )
    return transformer_engine(config, VOCABULARY, settings, 1, PLACEMENT, gradient_clipping=0.0)


def step(engine: "TrainingEngine", sentences: int, length: int) -> float:
    """Take one step; return its CPU time in seconds."""
    from benchmarks.support.engine_step import cpu_seconds_of_step

    batch = equal_sentences(sentences, length, VOCABULARY)
    return cpu_seconds_of_step(engine, batch, VOCABULARY, slots=1)


def milliseconds(points: list[Point], repetitions: int) -> list[list[float]]:
    """Times of each point's repetitions; needs the process group of one rank."""
    engines: dict[tuple[Setting, int], TrainingEngine] = {}
    for point in points:
        if (point.setting, point.layers) not in engines:
            engines[point.setting, point.layers] = build(point)
    taken: list[list[float]] = [[] for _ in points]
    visits = list(zip(taken, points, strict=True))
    for repetition in range(repetitions + 1):
        for found, point in visits if repetition % 2 else reversed(visits):
            engine = engines[point.setting, point.layers]
            seconds = step(engine, point.sentences, point.length)
            if repetition:  # the first one warms up
                found.append(1000 * seconds)
    return taken


def peak_megabytes(point: Point) -> float:
    """The peak memory of one step in this process, over what the process has without it."""
    with one_rank():
        engine = build(point)
        step(engine, 1, 1)
        # From here on: the peak of a whole process may begin with that of its parent.
        restart_peak()
        before = resident_bytes()
        step(engine, point.sentences, point.length)
        return (peak_resident_bytes() - before) / 1e6


def megabytes(points: list[Point]) -> list[list[float]]:
    """The peak memory of each point, one number, measured in a process of its own."""

    def in_a_process(point: Point) -> list[float]:
        command = [sys.executable, "-m", "benchmarks.cost_curves.points", json.dumps(asdict(point))]
        found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        return [float(found.stdout.splitlines()[-1])]

    with ThreadPoolExecutor(PROCESSES_AT_ONCE) as pool:
        return list(pool.map(in_a_process, points))


def point_from(text: str) -> Point:
    values = json.loads(text)
    setting = values["setting"]
    backend = AttentionBackend(setting["backend"]) if setting["backend"] else None
    return Point(**{**values, "setting": Setting(**{**setting, "backend": backend})})


if __name__ == "__main__":
    print(peak_megabytes(point_from(sys.argv[1])))
