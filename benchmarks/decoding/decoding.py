"""Beam search with the same weights in transloom, CTranslate2 and Hugging Face's `generate`.

One run of this script: the same sentences of the test sets and validation, beam size, cores and
weights, which a MarianMTModel in a separate environment loads, too. The contestants alternate; the
measured time is that of the translation of all sentences, after some sentences as a warm-up.
Hugging Face receives ids sorted by length, in batches of 64, and returns ids; transloom does
everything that `transloom translate` does between reading and writing lines. Hugging Face stops
when the number of finished hypotheses reaches the beam size (early_stopping=True), as transloom
does. CTranslate2 does what `transloom translate --engine ctranslate2` does, from texts to texts;
its model is converted and loaded before the measurement.

All use one core, and all cores in two ways: one process with a thread per core, or a process per
core (CTranslate2: a translating thread per core). `transloom translate` can start these processes
itself. For Hugging Face, the script divides the sentences among several processes, and adds up
their rates. An untrained model never ends its sentences, so even a run of base must be trained.

The first 600 steps of multi30k-ende are enough for that:

    .venv/bin/transloom prepare multi30k-ende
    .venv/bin/transloom train multi30k-ende trainer.max_steps=600 --run RUN
    .venv/bin/python benchmarks/decoding/decoding.py RUN [--sentences 2000] [--rounds 3] [--json]

`--python PATH` names an environment that has transformers; without it, the script creates one.
`--precisions fp32` leaves out bf16, which is several times slower on a CPU without AVX-512.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from benchmarks.support.command_line import benchmark_parser, parse_arguments
from benchmarks.support.environments import hugging_face_python, peer_variables
from benchmarks.support.trainings import say
from cluster.recipe import load_recipe
from data_pipeline.batching.heldout import load_heldout
from data_pipeline.batching.task import HeldOut
from data_pipeline.config.pair import SOURCE
from data_pipeline.dataset.manifest import Manifest, open_dataset
from data_pipeline.storage.store import DatasetStore
from data_pipeline.tasks.translation import heldout_pairs, pair_micro_batches
from data_pipeline.tokenizers.tokenizer import load_tokenizers
from foundation.process_pool import cores
from model.hugging_face.marian import to_marian
from run_store.folder import RunFolder
from trainer.process.host_memory import retain_freed_memory
from trainer.tasks.batch import to_device
from transloom.inference.engine_names import ComputeType, Engine
from transloom.inference.translator import Translator

HERE = Path(__file__).resolve().parent
WARM_UP_SENTENCES = 8
PRECISIONS = ("fp32", "bf16")
COMPUTE_TYPES = ("float32", "int8")
TRANSLOOM, CTRANSLATE2, GENERATE = "transloom", "CTranslate2", "Hugging Face"
GOAL_TIMES_FASTER = 5.0
ALL_AT_ONCE = 2**31

Ids = list[list[int]]


@dataclass(frozen=True)
class Arrangement:
    """Use of the cores."""

    processes: int
    threads: int  # threads of each process

    def __str__(self) -> str:
        return f"{self.processes} × {self.threads}"


@dataclass(frozen=True)
class Result:
    """Translation of all sentences in one round."""

    sentences_per_second: float
    translations: Ids  # best translation of each sentence

    @property
    def tokens_per_second(self) -> float:
        tokens = sum(len(ids) + 1 for ids in self.translations)  # EOS included
        return tokens / len(self.translations) * self.sentences_per_second


def dataset_of(run: str) -> tuple[DatasetStore, Manifest]:
    return open_dataset(load_recipe(RunFolder(Path(run)).recipe).data)


def sentences_of(run: str, count: int) -> HeldOut:
    """Return the first sentences of the test sets and of the validation set, without a tag."""
    store, manifest = dataset_of(run)
    names = sorted(manifest.heldout, key=lambda name: name == "validation")
    sets = [load_heldout(store, manifest, name) for name in names]
    assert not any(one.tags for one in sets), "a dataset without tags is wanted"
    sources = [sentence for one in sets for sentence in one.texts[SOURCE]][:count]
    return heldout_pairs(sources, [""] * len(sources))


def translate_here(run: str, count: int, beam: int, how: Arrangement, precision: str) -> Result:
    """Translate with transloom's search or with CTranslate2 in this process."""
    torch.set_num_threads(how.threads)
    retain_freed_memory()  # as in `transloom translate`
    if precision in COMPUTE_TYPES:
        translator = Translator.load(
            run, engine=Engine.CTRANSLATE2, compute_type=ComputeType(precision)
        )
    else:
        translator = Translator.load(run, precision="bf16" if precision == "bf16" else "fp32")
    translator.decoding = translator.decoding.model_copy(update={"beam_size": beam})
    sentences = sentences_of(run, count).texts[SOURCE]
    with translator.in_processes(how.processes):
        translator.translate(sentences[:WARM_UP_SENTENCES])
        started = time.perf_counter()
        found = translator.translate_n_best(sentences, n_best=1)
        seconds = time.perf_counter() - started
    return Result(len(found) / seconds, [list(best.ids) for (best,) in found])


def write_input_of_hugging_face(run: str, count: int, beam: int, folder: Path) -> None:
    """Write the weights, the settings and the sentences."""
    translator = Translator.load(run)
    vocabulary, exported = translator.model.vocabulary, to_marian(translator.model)
    save_file(exported.weights, folder / "model.safetensors")
    (batch,) = pair_micro_batches(
        sentences_of(run, count), load_tokenizers(*dataset_of(run)), ALL_AT_ONCE
    )
    source = to_device(batch, vocabulary, torch.device("cpu")).source
    np.savez(folder / "source.npz", allow_pickle=False, source=source, order=batch.pair_ids)
    settings = {
        "model": exported.config,
        "generate": {
            "num_beams": beam,
            "early_stopping": True,
            "length_penalty": translator.decoding.length_penalty,
            "suppress_tokens": [vocabulary.pad_id, vocabulary.bos_id],
            "max_new_tokens": int(
                source.shape[1] * translator.decoding.max_length_factor
                + translator.decoding.max_extra_length
            ),
        },
        "warm_up_sentences": WARM_UP_SENTENCES,
    }
    (folder / "settings.json").write_text(json.dumps(settings))


def measured_here(run: str, count: int, beam: int, how: Arrangement, precision: str) -> Result:
    """Measure transloom or CTranslate2 in a separate process, which may start more processes."""
    command = [sys.executable, __file__, run, "--sentences", str(count), "--beam", str(beam)]
    command += ["--measure", precision, str(how.processes), str(how.threads)]
    (output,) = outputs_of([command], how)
    return Result(**output)


def measured_there(python: Path, folder: Path, how: Arrangement, precision: str) -> Result:
    """Measure one process of Hugging Face per part, all at the same time."""
    script = str(HERE / "hugging_face.py")
    parts = [f"{part}/{how.processes}" for part in range(how.processes)]
    outputs = outputs_of(
        [[str(python), script, str(folder), precision, part] for part in parts],
        how,
        peer_variables(),
    )
    found = dict(pair for output in outputs for pair in output["translations"])
    rate = sum(len(output["translations"]) / output["seconds"] for output in outputs)
    return Result(rate, [found[number] for number in range(len(found))])


def outputs_of(
    commands: list[list[str]], how: Arrangement, variables: dict[str, str] | None = None
) -> list[Any]:
    """Run commands at the same time; return the JSON in the last line of each output.

    Together they may use as many cores as they have threads.
    """
    environment = os.environ | {"OMP_NUM_THREADS": str(how.threads)} | (variables or {})
    allowed = sorted(os.sched_getaffinity(0))
    some = allowed[: how.processes * how.threads]
    os.sched_setaffinity(0, some)  # the commands inherit the cores
    try:
        running = [
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
            for command in commands
        ]
    finally:
        os.sched_setaffinity(0, allowed)
    outputs = [process.communicate()[0] for process in running]
    for process in running:
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, process.args)
    return [json.loads(output.splitlines()[-1]) for output in outputs]


def table(results: dict[tuple[str, Arrangement, str], list[Result]]) -> str:
    lines = [
        "| | processes × threads | | sentences/s, median | range | target tokens/s, median "
        "| as transloom fp32 |",
        "|---|---|---|---|---|---|---|",
    ]
    reference = next(iter(results.values()))[0].translations
    medians = {}
    for (who, how, precision), found in results.items():
        rates = [one.sentences_per_second for one in found]
        medians[who, how, precision] = statistics.median(rates)
        tokens = statistics.median(one.tokens_per_second for one in found)
        pairs = list(zip(found[0].translations, reference, strict=True))
        same = sum(ours == theirs for ours, theirs in pairs) / len(pairs)
        lines.append(
            f"| {who} | {how} | {precision} | {statistics.median(rates):.1f} | "
            f"{min(rates):.1f}–{max(rates):.1f} | {tokens:,.0f} | {same:.0%} |"
        )
    ours = max(rate for (who, _, _), rate in medians.items() if who == TRANSLOOM)
    alone = {
        how: max(rate for (who, h, _), rate in medians.items() if (who, h) == (GENERATE, how))
        for how in {how for _, how, _ in medians}
    }
    one_process = max(rate for how, rate in alone.items() if how.processes == 1)
    times = ours / one_process
    reached = "reached" if times >= GOAL_TIMES_FASTER else "MISSED"
    lines += [
        "",
        f"{reached}: {times:.1f} times `generate` on the same cores, best precision each, "
        f"goal {GOAL_TIMES_FASTER:g}; {ours / max(alone.values()):.1f} times it in whichever "
        "arrangement is best for it",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = benchmark_parser(__doc__, json=True)
    parser.add_argument("run", help="folder of a trained run with joint embeddings")
    parser.add_argument("--sentences", type=int, default=2000)
    parser.add_argument("--beam", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--python", type=Path, help="of an environment that has transformers")
    parser.add_argument("--torch-index", help="package index with torch for CPU")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    arguments = parse_arguments(
        parser,
        smoke="{run} --sentences 3 --beam 2 --rounds 1 --precisions fp32 --python {python}",
    )
    run, count, beam = arguments.run, arguments.sentences, arguments.beam
    if arguments.measure:
        precision, processes, threads = arguments.measure
        how = Arrangement(int(processes), int(threads))
        print(json.dumps(asdict(translate_here(run, count, beam, how, precision))))
        return
    python = arguments.python or hugging_face_python(arguments.torch_index)
    ways = [(1, 1)] if arguments.smoke else sorted({(1, 1), (1, cores()), (cores(), 1)})
    with tempfile.TemporaryDirectory() as temporary:
        write_input_of_hugging_face(run, count, beam, Path(temporary))
        measure: dict[tuple[str, Arrangement, str], Callable[[], Result]] = {}
        for how in (Arrangement(*way) for way in ways):
            for precision in arguments.precisions:
                measure[TRANSLOOM, how, precision] = partial(
                    measured_here, run, count, beam, how, precision
                )
            for compute_type in COMPUTE_TYPES:
                measure[CTRANSLATE2, how, compute_type] = partial(
                    measured_here, run, count, beam, how, compute_type
                )
            for precision in arguments.precisions:
                measure[GENERATE, how, precision] = partial(
                    measured_there, python, Path(temporary), how, precision
                )
        results: dict[tuple[str, Arrangement, str], list[Result]] = {key: [] for key in measure}
        for _ in range(arguments.rounds):
            for (who, how, precision), once in measure.items():
                found = once()
                results[who, how, precision].append(found)
                say(f"{who} {how} {precision}: {found.sentences_per_second:.1f} sentences/s")
    if arguments.json:
        rates = {
            " ".join(map(str, key)): [
                [one.sentences_per_second, one.tokens_per_second] for one in found
            ]
            for key, found in results.items()
        }
        print(json.dumps(rates))
    else:
        print(table(results))


if __name__ == "__main__":
    main()
