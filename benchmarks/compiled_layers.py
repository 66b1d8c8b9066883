"""Cost and benefit of compiled layers: steps of the engine with and without `engine.compile`.

One process with one thread; engines with and without compiled layers are built in turn, on
synthetic micro-batches, two per step. The figures are CPU seconds, which depend little on other
processes: of the median step, and of compiling with an empty cache (including the compiler's
processes) and with a filled one. The ledger of `benchmarks.launches` cannot count launches of
compiled code, so the script counts the kernels in that code.

    .venv/bin/python benchmarks/compiled_layers.py [--rounds N]
"""

import os
import re
import statistics
import tempfile
import time
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path

import torch

from benchmarks.launches.steps import PLACEMENT, Form, Row, steps_of
from benchmarks.support.as_rank import restart_in_rank_environment
from benchmarks.support.command_line import benchmark_parser, names_from, parse_arguments
from model.config.decoder_only import DecoderOnlyConfig
from model.config.transformer import ModelConfig
from trainer.process.distributed import process_group

TINY = ModelConfig(
    encoder_layers=3, decoder_layers=3, width=128, feed_forward_width=512, heads=4, dropout=0.3
)
CHARACTERS = DecoderOnlyConfig(preset="gpt2", layers=4, width=128, heads=4, dropout=0.0)
FORMS = {
    "tiny": Form(TINY, 4000, 64, 16),
    "base": Form(ModelConfig(), 8000, 32, 24),
    "shakespeare-char": Form(CHARACTERS, 69, 4, 64),
}
GRAPH = re.compile(r"^# AOT ID: \['\d+_(forward|backward)'\]")
KERNEL = re.compile(r"^ {8,}(?:buf\d+ = )?(?:cpp_fused\w*\(|extern_kernels|torch\.ops|aten)", re.M)
WARM_UP, STEPS = 2, 4


def cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def measured(row: Row, form: Form) -> tuple[float, float]:
    """Return the CPU seconds of building the engine and of a median step."""
    torch.manual_seed(1)
    before = cpu_seconds()
    with steps_of(row, form, PLACEMENT) as step:
        built, batch, taken = cpu_seconds() - before, form.batch(PLACEMENT.torch_device), []
        for _ in range(WARM_UP + STEPS):
            started = time.process_time()
            step(lambda part: nullcontext(), batch)
            taken.append(time.process_time() - started)
    return built, statistics.median(taken[WARM_UP:])


def kernels_of_layers(cache: str) -> str:
    """Return the kernel calls of each training graph in a cache, forward + backward."""
    calls = {"forward": [], "backward": []}
    for file in sorted(Path(cache).rglob("*.py")):
        text = file.read_text()
        if found := GRAPH.search(text):
            calls[found[1]].append(len(KERNEL.findall(text)))
    return "; ".join(f"{part} {', '.join(map(str, counts))}" for part, counts in calls.items())


def main() -> None:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", type=names_from(FORMS), default=list(FORMS))
    arguments = parse_arguments(parser, smoke="--rounds 1 --models tiny")
    restart_in_rank_environment()
    print("| model | precision | ms a step | compiled | ratio | 1st start, s | 2nd | kernels |")
    print("|---|---|---|---|---|---|---|---|")
    with (
        process_group(PLACEMENT, timedelta(minutes=1)),
        tempfile.TemporaryDirectory() as folder,
    ):
        for name in arguments.models:
            for precision in ("fp32", "bf16"):
                cache = os.environ["TORCHINDUCTOR_CACHE_DIR"] = f"{folder}/{name}-{precision}"
                plain = Row(name, precision, 1, "fast")
                row = plain._replace(loop="compiled")
                first, *_ = measured(row, FORMS[name])
                rounds = [
                    (measured(plain, FORMS[name]), measured(row, FORMS[name]))
                    for _ in range(arguments.rounds)
                ]
                eager = statistics.median(one[1] for one, _ in rounds)
                compiled = statistics.median(two[1] for _, two in rounds)
                second = statistics.median(two[0] for _, two in rounds)
                print(
                    f"| {name} | {precision} | {1000 * eager:.0f} | {1000 * compiled:.0f} "
                    f"| {compiled / eager:.2f} | {first:.0f} | {second:.0f} "
                    f"| {kernels_of_layers(cache)} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
