"""Validation curve of a masked model's run, and the loss of a unigram model on the same tokens.

    .venv/bin/python benchmarks/masked_model/curves.py RUN     in the folder in which it was begun

The unigram model predicts hidden tokens by the frequency of each piece in the training text, with
one added to all counts. The hidden tokens are those of every validation of the run.
"""

from pathlib import Path

import numpy as np

from benchmarks.support.command_line import benchmark_parser, parse_arguments
from benchmarks.support.datasets import blocks_of
from cluster.recipe import load_recipe
from data_pipeline.batching.heldout import load_heldout
from data_pipeline.batching.task import DATA_TASKS
from data_pipeline.dataset.manifest import open_dataset
from data_pipeline.tasks.masking import IGNORE_INDEX, LABELS_FIELD
from data_pipeline.tokenizers.tokenizer import load_tokenizers
from run_store.folder import RunFolder
from run_store.record.metrics_file import read_metrics
from run_store.record.metrics_lines import ValidationLine


def main() -> None:
    parser = benchmark_parser(__doc__)
    parser.add_argument("run", type=Path)
    arguments = parse_arguments(parser, smoke="{masked_run}")
    run = RunFolder(arguments.run)
    recipe = load_recipe(run.recipe).training()
    store, manifest = open_dataset(recipe.data)
    tokenizers = load_tokenizers(store, manifest)
    (size,) = {tokenizer.vocabulary_size for tokenizer in tokenizers.values()}
    counts = np.ones(size, dtype=np.int64)
    for block in blocks_of(recipe):
        for field in block.fields.values():
            counts += np.bincount(field.ids, minlength=size)
    heldout = load_heldout(store, manifest, "validation")
    task = DATA_TASKS[recipe.task]
    batches = task.heldout_micro_batches(heldout, tokenizers, recipe.data_settings)
    told = np.concatenate([batch.fields[LABELS_FIELD].ids for batch in batches])
    told = told[told != IGNORE_INDEX]
    loss = -np.log(counts[told] / counts.sum()).mean()
    print(f"unigram: {loss:.3f} nats per token, of {len(told):,} hidden ones")
    for line in read_metrics(run.metrics):
        if isinstance(line, ValidationLine):
            print(
                line.step, {name: round(score.value or 0, 3) for name, score in line.scores.items()}
            )


if __name__ == "__main__":
    main()
