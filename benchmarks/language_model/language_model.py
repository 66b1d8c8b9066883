"""Training speed of a small language model, compared with a plain loop and Hugging Face's Trainer.

One run of this script: the same text, the same network (4 layers of width 128, GPT-2's form), the
same step of 12 rows of 64 characters, the same optimizer settings, fp32, and the same number of
threads. The contestants alternate; each trains for a while in a separate process, and is then
stopped. The figure is target tokens per second, from 10 s after the first step; ratios are those of
each round, since the machine's speed drifts.

    transloom, recipe     `transloom train shakespeare-char --inline`: a step of 3 micro-batches
    transloom, one pass   the same step as one micro-batch of 768 tokens
    transloom, ranks      with more than one thread: the same step in as many micro-batches, a rank
                          of one thread for each
    plain loop            torch alone: random offsets into one array of ids, torch's own attention
                          and fused AdamW; plain_loop.py
    Hugging Face          Trainer and GPT2LMHeadModel, in a separate environment, which is created
                          if it is missing; hugging_face.py

On a machine with other users, compare the columns of CPU seconds: tokens per CPU second of all
processes of a contestant.

    .venv/bin/python benchmarks/language_model/language_model.py \
        [--data FOLDER] [--rounds 5] [--seconds 15] [--threads 1] [KEY=VALUE …]

data: a folder with input.txt, which is downloaded otherwise. KEY=VALUE overrides the recipe in both
of transloom's turns: engine.attention=sdpa.
"""

import tempfile
from pathlib import Path

from benchmarks.language_model.contestants import RECIPE, hugging_face, plain_loop
from benchmarks.support.command_line import parse_arguments
from benchmarks.support.contestants import Transloom
from benchmarks.support.packed_text import export_text
from benchmarks.support.speed import Contestant
from benchmarks.support.turns import parser_of_turns, print_speeds

OURS = ("transloom, recipe", "transloom, one pass", "transloom, ranks")
GOALS = {"plain loop": 1.0, "Hugging Face": 1.5}


def main() -> None:
    arguments = parse_arguments(
        parser_of_turns(__doc__, "folder with input.txt"),
        smoke="--data phrasebook --rounds 1 --seconds 1 --settling 0 --without-hugging-face",
    )
    with tempfile.TemporaryDirectory() as temporary:
        text = export_text(RECIPE, Path(temporary), arguments.data)
        threads, overrides = arguments.threads, [*text.overrides, *arguments.overrides]
        whole = f"batching.max_tokens_per_micro_batch={text.rows * text.context}"
        one_pass = [*overrides, whole, "batching.micro_batches_per_step=1"]
        contestants: dict[str, Contestant] = {
            OURS[0]: Transloom(RECIPE, threads, overrides),
            OURS[1]: Transloom(RECIPE, threads, one_pass),
            "plain loop": plain_loop(text, threads),
        }
        if threads > 1:
            part = f"batching.max_tokens_per_micro_batch={text.rows // threads * text.context}"
            dealt = [*overrides, part, f"batching.micro_batches_per_step={threads}"]
            contestants[OURS[2]] = Transloom(RECIPE, threads, dealt, ranks=threads)
        if not arguments.without_hugging_face:
            contestants["Hugging Face"] = hugging_face(text, threads, arguments.torch_index)
        print_speeds(contestants, GOALS, arguments)


if __name__ == "__main__":
    main()
