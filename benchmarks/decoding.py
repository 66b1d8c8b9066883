"""Beam search of a trained run, beside Hugging Face's `generate` with the same weights.

One run of this script: the same sentences of a test set, beam size, threads and weights, which go
to a MarianMTModel in an environment of its own. The contestants alternate, each in a process of
its own; the clock runs while all sentences are translated, from ids to ids, after some sentences
to warm up. Both see the sentences sorted by length; Hugging Face in batches of 64, transloom in
batches of 4,096 source tokens. Hugging Face stops when as many hypotheses are finished as the beam
is wide (early_stopping=True), as transloom does. On a machine that others use too,
`--threads 1 --cpu-time` counts CPU seconds instead.

    .venv/bin/transloom train multi30k-ende …
    .venv/bin/python benchmarks/decoding.py RUN [--sentences 1000] [--rounds 3] [--json]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from environments import PEERS, environment_with
from peers_contestants import HUGGING_FACE
from safetensors.torch import save_file
from torch import Tensor

from cluster.recipe import load_recipe
from data_pipeline.dataset.heldout import HeldOut, heldout_micro_batches, load_heldout
from data_pipeline.dataset.manifest import open_dataset
from data_pipeline.feeding.batch import MicroBatch
from data_pipeline.pieces.tokenizer import load_tokenizers
from model.decoding import beam_search
from model.transformer import Transformer
from trainer.batch import to_device
from trainer.host_memory import keep_freed
from trainer.run_folder import RunFolder
from trainer.translator import TOKENS_PER_BATCH, Translator

HERE = Path(__file__).resolve().parent
WARM_UP_SENTENCES = 8
PRECISIONS = ("fp32", "bf16")
POSITIONS = 512
GOAL_TIMES_FASTER = 5.0
ALL_AT_ONCE = 2**31

Ids = list[list[int]]


@dataclass(frozen=True)
class Result:
    """All sentences once."""

    seconds: float
    cpu_seconds: float
    translations: Ids  # the best of each sentence

    @property
    def sentences_per_second(self) -> float:
        return len(self.translations) / self.seconds

    @property
    def tokens_per_second(self) -> float:
        return sum(len(ids) + 1 for ids in self.translations) / self.seconds  # with EOS

    def by_cpu_time(self) -> "Result":
        return replace(self, seconds=self.cpu_seconds)


def sentences_of(run: str, count: int, budget: int) -> list[MicroBatch]:
    """The first sentences of the first test set (or validation), sorted by length, in batches."""
    store, manifest = open_dataset(load_recipe(RunFolder(Path(run)).recipe).data)
    tests = [name for name in manifest.heldout if name != "validation"]
    name = tests[0] if tests else "validation"
    sources = load_heldout(store, manifest, name).sources[:count]
    return heldout_micro_batches(
        HeldOut(sources, [""] * len(sources)), load_tokenizers(store, manifest), budget
    )


def translate_here(run: str, count: int, beam: int, threads: int, precision: str) -> Result:
    """transloom's turn."""
    torch.set_num_threads(threads)
    keep_freed()  # as `transloom translate` does
    translator = Translator.load(run, precision="bf16" if precision == "bf16" else "fp32")
    model = translator.model
    decoding = translator.decoding.model_copy(update={"beam_size": beam})
    found: dict[int, list[int]] = {}

    def translate(batches: list[MicroBatch]) -> None:
        for batch in batches:
            source = to_device(batch, model.vocabulary, torch.device("cpu")).source
            best = [hypotheses[0] for hypotheses in beam_search(model, source, decoding)]
            found.update(
                {n: list(one.ids) for n, one in zip(batch.pair_ids.tolist(), best, strict=True)}
            )

    translate(sentences_of(run, WARM_UP_SENTENCES, TOKENS_PER_BATCH))
    batches = sentences_of(run, count, TOKENS_PER_BATCH)
    found.clear()
    started, cpu_started = time.perf_counter(), time.process_time()
    translate(batches)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    return Result(seconds, cpu_seconds, [found[n] for n in range(count)])


def marian_weights(model: Transformer) -> dict[str, Tensor]:
    """The weights by Marian's names; it gets our table of positions in place of its own."""
    assert model.config.share_embeddings == "all", "Marian's embeddings are shared"
    table = model.positions(0, POSITIONS).float()
    weights = {
        "model.shared.weight": model.target_embedding.weight,
        "model.encoder.embed_positions.weight": table,
        "model.decoder.embed_positions.weight": table.clone(),
    }
    modules = {
        "self_attention.query_key_value": "self_attn.{qkv}_proj",
        "self_attention.output": "self_attn.out_proj",
        "self_attention_norm": "self_attn_layer_norm",
        "cross_attention.query": "encoder_attn.q_proj",
        "cross_attention.key_value": "encoder_attn.{kv}_proj",
        "cross_attention.output": "encoder_attn.out_proj",
        "cross_attention_norm": "encoder_attn_layer_norm",
        "feed_forward.inner": "fc1",
        "feed_forward.outer": "fc2",
        "feed_forward_norm": "final_layer_norm",
    }
    for name, tensor in model.named_parameters():
        path, _, kind = name.rpartition(".")
        if path == "target_embedding":
            continue
        stack, layers, number, module = path.split(".", 3)
        theirs = f"model.{stack}.{layers}.{number}.{modules[module]}.{kind}"
        parts = {"{qkv}": "qkv", "{kv}": "kv"}
        fused = next((mark for mark in parts if mark in theirs), None)
        letters = parts[fused] if fused else " "
        for letter, part in zip(letters, tensor.chunk(len(letters)), strict=True):
            weights[theirs.replace(fused, letter) if fused else theirs] = part
    return {name: tensor.detach().contiguous() for name, tensor in weights.items()}


def write_input_of_hugging_face(run: str, count: int, beam: int, folder: Path) -> None:
    """The weights, the settings and the sentences."""
    translator = Translator.load(run)
    model, config, vocabulary = (
        translator.model,
        translator.model.config,
        translator.model.vocabulary,
    )
    save_file(marian_weights(model), folder / "model.safetensors")
    (batch,) = sentences_of(run, count, ALL_AT_ONCE)
    source = to_device(batch, vocabulary, torch.device("cpu")).source
    np.savez(folder / "source.npz", allow_pickle=False, source=source, order=batch.pair_ids)
    sides = ("encoder", "decoder")
    settings = {
        "model": {
            "vocab_size": vocabulary.target_size,
            "d_model": config.width,
            "encoder_layers": config.encoder_layers,
            "decoder_layers": config.decoder_layers,
            **{f"{side}_ffn_dim": config.feed_forward_width for side in sides},
            **{f"{side}_attention_heads": config.heads for side in sides},
            "activation_function": "relu",
            "scale_embedding": True,
            "max_position_embeddings": POSITIONS,
            "pad_token_id": vocabulary.pad_id,
            "eos_token_id": vocabulary.eos_id,
            "forced_eos_token_id": vocabulary.eos_id,
            "decoder_start_token_id": vocabulary.bos_id,
        },
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


def result_of(command: list[str], threads: int) -> Result:
    output = subprocess.run(
        command,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
    ).stdout
    return Result(**json.loads(output.splitlines()[-1]))


def table(results: dict[str, list[Result]]) -> str:
    lines = [
        "| | sentences/s, median | range | target tokens/s, median | as transloom fp32 |",
        "|---|---|---|---|---|",
    ]
    reference = results["transloom fp32"][0].translations
    for name, found in results.items():
        rates = [one.sentences_per_second for one in found]
        tokens = statistics.median(one.tokens_per_second for one in found)
        pairs = list(zip(found[0].translations, reference, strict=True))
        same = sum(ours == theirs for ours, theirs in pairs) / len(pairs)
        lines.append(
            f"| {name} | {statistics.median(rates):.1f} | {min(rates):.1f}–{max(rates):.1f} | "
            f"{tokens:,.0f} | {same:.0%} |"
        )
    best = {
        who: max(
            statistics.median(one.sentences_per_second for one in found)
            for name, found in results.items()
            if name.startswith(who)
        )
        for who in ("transloom", "Hugging Face")
    }
    times = best["transloom"] / best["Hugging Face"]
    reached = "reached" if times >= GOAL_TIMES_FASTER else "MISSED"
    lines += [
        "",
        f"{reached}: {times:.1f} times Hugging Face, best precision each, "
        f"goal {GOAL_TIMES_FASTER:g}",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="folder of a trained run with joint embeddings")
    parser.add_argument("--sentences", type=int, default=1000)
    parser.add_argument("--beam", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--cpu-time", action="store_true", help="by CPU seconds, on a machine others use too"
    )
    parser.add_argument("--torch-index", help="package index with torch for CPU")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--measure", choices=PRECISIONS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    run, count, beam, threads = (
        arguments.run,
        arguments.sentences,
        arguments.beam,
        arguments.threads,
    )
    if arguments.measure:
        found = translate_here(run, count, beam, threads, arguments.measure)
        print(json.dumps(asdict(found)))
        return
    python = environment_with(HUGGING_FACE, PEERS / "hugging-face", arguments.torch_index)
    with tempfile.TemporaryDirectory() as temporary:
        write_input_of_hugging_face(run, count, beam, Path(temporary))
        here = [sys.executable, __file__, run, "--sentences", str(count), "--beam", str(beam)]
        here += ["--threads", str(threads), "--measure"]
        there = [str(python), str(HERE / "decoding_hugging_face.py"), temporary]
        commands = {f"transloom {p}": [*here, p] for p in PRECISIONS}
        commands |= {f"Hugging Face {p}": [*there, p] for p in PRECISIONS}
        results: dict[str, list[Result]] = {name: [] for name in commands}
        for _ in range(arguments.rounds):
            for name, command in commands.items():
                result = result_of(command, threads)
                results[name].append(result.by_cpu_time() if arguments.cpu_time else result)
                rate = results[name][-1].sentences_per_second
                print(f"{name}: {rate:.1f} sentences/s", file=sys.stderr, flush=True)
    if arguments.json:
        rates = {
            name: [[one.sentences_per_second, one.tokens_per_second] for one in found]
            for name, found in results.items()
        }
        print(json.dumps(rates))
    else:
        print(table(results))


if __name__ == "__main__":
    main()
