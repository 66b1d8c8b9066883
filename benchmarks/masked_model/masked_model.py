"""Training speed of a small masked model, compared with Hugging Face's Trainer.

One run of this script: the same captions (Multi30k in three languages, 8,000 pieces), the same
network (BERT's form, 4 layers of width 128), the same tokens of a step, optimizer settings and
number of threads, fp32. The contestants alternate; each trains for a while in a separate process,
and is then stopped. The figure is tokens read per second, from 10 s after the first step; ratios
are those of each round, since the machine's speed drifts.

    transloom     `transloom train multi30k-masked --inline`, with all work of a run. Whole
                  captions are packed into rows, without attention between them
    Hugging Face  captions joined and cut into rows, as in its example: no padding, no mask,
                  and rows that begin and end anywhere; hugging_face.py. In a separate
                  environment, which is created if it is missing

    .venv/bin/python benchmarks/masked_model/masked_model.py \
        [--data FOLDER] [--rounds 5] [--seconds 15] [--threads 1] [KEY=VALUE …]

data: a folder with the captions' files, which are downloaded otherwise. KEY=VALUE overrides the
recipe.
"""

import tempfile
from pathlib import Path

from benchmarks.masked_model.contestants import RECIPE, hugging_face, transloom
from benchmarks.support.command_line import parse_arguments
from benchmarks.support.packed_text import export_text
from benchmarks.support.speed import Contestant
from benchmarks.support.turns import parser_of_turns, print_speeds

GOALS = {"Hugging Face": 1.5}


def main() -> None:
    arguments = parse_arguments(
        parser_of_turns(__doc__, "folder with the captions' files"),
        smoke="--data phrasebook --rounds 1 --seconds 1 --settling 0 --without-hugging-face "
        "batching.max_tokens_per_micro_batch=128 batching.micro_batches_per_step=1",
    )
    with tempfile.TemporaryDirectory() as temporary:
        captions = export_text(RECIPE, Path(temporary), arguments.data)
        contestants: dict[str, Contestant] = {
            "transloom": transloom(captions, arguments.threads, arguments.overrides)
        }
        if not arguments.without_hugging_face:
            peer = hugging_face(captions, arguments.threads, arguments.torch_index)
            contestants["Hugging Face"] = peer
        print_speeds(contestants, GOALS, arguments)


if __name__ == "__main__":
    main()
