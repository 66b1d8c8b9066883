"""Training speed of a small language model, beside a plain loop and Hugging Face's Trainer.

One run of this script: the same text, the same network (4 layers of width 128, GPT-2's form), the
same step of 12 rows of 64 characters, the same optimizer settings, fp32, and the same number of
threads. The contestants alternate; each trains for a while in a process of its own, and is then
stopped. What counts is the target tokens per second, from 10 s after the first step; ratios are
those of each round, since the machine's speed drifts.

    transloom, recipe     `transloom train shakespeare-char --inline`: a step of 3 micro-batches
    transloom, one pass   the same step as one micro-batch of 768 tokens
    transloom, ranks      with more than one thread: the same step in as many micro-batches, a rank
                          of one thread for each
    plain loop            torch alone: random offsets into one array of ids, torch's own attention
                          and fused AdamW; plain_loop.py
    Hugging Face          Trainer and GPT2LMHeadModel, in an environment of their own, which is made
                          when it is missing; hugging_face.py

On a machine that others use too, look at the columns of CPU seconds: tokens per CPU second of all
processes of a contestant.

    .venv/bin/python benchmarks/language_model/language_model.py \
        [--data FOLDER] [--rounds 5] [--seconds 15] [--threads 1] [KEY=VALUE …]

data: a folder with input.txt, which is downloaded otherwise. KEY=VALUE overrides the recipe in both
of transloom's turns: engine.attention=sdpa.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.language_model.contestants import (
    Transloom,
    export_text,
    hugging_face,
    plain_loop,
)
from benchmarks.support.speed import Contestant, Speed, measure
from benchmarks.support.trainings import say

OURS = ("transloom, recipe", "transloom, one pass", "transloom, ranks")
GOALS = {"plain loop": 1.0, "Hugging Face": 1.5}

Speeds = dict[str, list[Speed]]


def table(speeds: Speeds) -> str:
    lines = [
        "| | tokens/s, median | range | tokens/CPU s, median | range | runs |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in speeds.items():
        columns = [
            f"{statistics.median(values):,.0f} | {min(values):,.0f}–{max(values):,.0f}"
            for values in zip(*found, strict=True)
        ]
        lines.append(f"| {name} | {' | '.join(columns)} | {len(found)} |")
    lines += ["", "| ratio | by the clock | range | by CPU time | range | goal |"]
    lines += ["|---|---|---|---|---|---|"]
    for ours in (name for name in OURS if name in speeds):
        for peer, goal in GOALS.items():
            if peer in speeds:
                columns = [
                    f"{statistics.median(values):.2f} | {min(values):.2f}–{max(values):.2f}"
                    for values in ratios(speeds[ours], speeds[peer])
                ]
                lines.append(f"| {ours} / {peer} | {' | '.join(columns)} | {goal:g} |")
    return "\n".join(lines)


def ratios(ours: list[Speed], theirs: list[Speed]) -> list[list[float]]:
    """Our speed over theirs in each round: by the clock, and by CPU time."""
    pairs = list(zip(ours, theirs, strict=True))
    return [[a[kind] / b[kind] for a, b in pairs] for kind in range(len(Speed._fields))]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="folder with input.txt")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=15.0, help="of the steady state, a run")
    parser.add_argument("--threads", type=int, default=1, help="of each contestant's torch")
    parser.add_argument("--without-hugging-face", action="store_true")
    parser.add_argument("--torch-index", help="package index with torch for CPU, for the peer")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        text = export_text(Path(temporary), arguments.data)
        threads, overrides = arguments.threads, arguments.overrides
        whole = f"batching.max_tokens_per_micro_batch={text.rows * text.context}"
        one_pass = [*overrides, whole, "batching.micro_batches_per_step=1"]
        contestants: dict[str, Contestant] = {
            OURS[0]: Transloom(text, threads, overrides),
            OURS[1]: Transloom(text, threads, one_pass),
            "plain loop": plain_loop(text, threads),
        }
        if threads > 1:
            part = f"batching.max_tokens_per_micro_batch={text.rows // threads * text.context}"
            dealt = [*overrides, part, f"batching.micro_batches_per_step={threads}"]
            contestants[OURS[2]] = Transloom(text, threads, dealt, ranks=threads)
        if not arguments.without_hugging_face:
            contestants["Hugging Face"] = hugging_face(text, threads, arguments.torch_index)
        speeds: Speeds = {name: [] for name in contestants}
        for round_number in range(arguments.rounds):
            for number, (name, contestant) in enumerate(contestants.items()):
                contestant.enter(Path(temporary) / f"{round_number}-{number}")
                speeds[name].append(measure(contestant, arguments.seconds))
                clock, cpu = speeds[name][-1]
                load = os.getloadavg()[0]
                say(f"{name}: {clock:,.0f}/s, {cpu:,.0f} per CPU second, load {load:.1f}")
    if arguments.json:
        json.dump(speeds, sys.stdout)
    else:
        print(table(speeds))


if __name__ == "__main__":
    main()
