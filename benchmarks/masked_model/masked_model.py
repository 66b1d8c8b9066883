"""Training speed of a small masked model, beside Hugging Face's Trainer with BertForMaskedLM.

One run of this script: the same captions (Multi30k in three languages, 8,000 pieces), the same
network (BERT's form, 4 layers of width 128), the same tokens of a step, optimizer settings and
number of threads, fp32. The contestants alternate; each trains for a while in a process of its
own, and is then stopped. What counts are the tokens that are read, per second, from 10 s after the
first step; ratios are those of each round, since the machine's speed drifts.

    transloom     `transloom train multi30k-masked --inline`, with all else that a run does. Whole
                  captions are packed into rows, and none sees another
    Hugging Face  captions joined and cut into rows, as its example does it: no padding, no mask,
                  and rows that begin and end anywhere; hugging_face.py. In an environment of its
                  own, which is made when it is missing

    .venv/bin/python benchmarks/masked_model/masked_model.py \
        [--data FOLDER] [--rounds 5] [--seconds 15] [--threads 1] [KEY=VALUE …]

data: a folder with the captions' files, which are downloaded otherwise. KEY=VALUE overrides the
recipe.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from benchmarks.masked_model.contestants import export_captions, hugging_face, transloom
from benchmarks.support.command_line import parse_arguments
from benchmarks.support.record import SETTLING_SECONDS
from benchmarks.support.speed import Contestant
from benchmarks.support.turns import table, take_turns

GOALS = {"Hugging Face": 1.5}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="folder with the captions' files")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=15.0, help="of the steady state, a run")
    parser.add_argument(
        "--settling", type=float, default=SETTLING_SECONDS, help="seconds before the steady state"
    )
    parser.add_argument("--threads", type=int, default=1, help="of each contestant's torch")
    parser.add_argument("--without-hugging-face", action="store_true")
    parser.add_argument("--torch-index", help="package index with torch for CPU, for the peer")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    arguments = parse_arguments(
        parser,
        smoke="--data phrasebook --rounds 1 --seconds 1 --settling 0 --without-hugging-face "
        "batching.max_tokens_per_micro_batch=128 batching.micro_batches_per_step=1",
    )
    with tempfile.TemporaryDirectory() as temporary:
        captions = export_captions(Path(temporary), arguments.data)
        contestants: dict[str, Contestant] = {
            "transloom": transloom(captions, arguments.threads, arguments.overrides)
        }
        if not arguments.without_hugging_face:
            peer = hugging_face(captions, arguments.threads, arguments.torch_index)
            contestants["Hugging Face"] = peer
        speeds = take_turns(contestants, arguments.rounds, arguments.seconds, arguments.settling)
    if arguments.json:
        json.dump(speeds, sys.stdout)
    else:
        print(table(speeds, GOALS))


if __name__ == "__main__":
    main()
