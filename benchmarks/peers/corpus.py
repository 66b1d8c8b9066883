"""Corpus of peers.py, prepared by transloom, and the same pieces in the peers' formats."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.support.corpora import corpus_overrides
from benchmarks.support.datasets import blocks_of, prepared_recipe
from data_pipeline.dataset.manifest import open_dataset
from data_pipeline.tokenizers.tokenizer import load_tokenizers

RECIPE = "multi30k-ende"
PIECES = 8000
SIDES = ("src", "tgt")


@dataclass(frozen=True)
class Corpus:
    """Prepared corpus, in the formats of all contestants."""

    dataset: Path  # dataset of transloom
    data: str | None  # see `corpus_overrides`
    # prefix of files with a side's sentences, as pieces separated by spaces
    pieces: dict[str, Path]
    vocabulary_size: int
    vocabulary: Path  # vocabulary file with a piece per line, ordered by id
    ids: Path  # npz with the ids
    longest_mean: float  # mean number of tokens of a pair's longer side
    special: dict[str, int]  # ids of the special pieces
    pad: str  # the padding piece


def overrides_of(data: str | None, dataset: Path) -> list[str]:
    return [
        f"data.dataset={dataset}",
        f"tokenizer.vocabulary_size={PIECES}",
        *corpus_overrides(RECIPE, data),
    ]


def export_corpus(folder: Path, data: str | None) -> Corpus:
    """Prepare the corpus, and write the same pieces in the formats of the peers."""
    recipe = prepared_recipe(RECIPE, overrides_of(data, folder / "dataset"))
    store, manifest = open_dataset(recipe.data)
    blocks = list(blocks_of(recipe))
    tokenizer = load_tokenizers(store, manifest)["tgt"]
    texts = [tokenizer.piece(number) for number in range(tokenizer.vocabulary_size)]
    vocabulary = folder / "vocabulary.txt"
    vocabulary.write_text("".join(f"{text}\t1\n" for text in texts))
    arrays, pieces = {}, {}
    for side in SIDES:
        ids = np.concatenate([block.fields[side].ids for block in blocks]).astype(np.int64)
        lengths = np.concatenate([block.fields[side].lengths for block in blocks])
        arrays |= {f"{side}.ids": ids, f"{side}.lengths": lengths}
        pieces[side] = folder / f"{side}.pieces"
        sentences = np.split(ids, np.cumsum(lengths)[:-1])
        pieces[side].write_text(  # without EOS, which Eole adds
            "".join(" ".join(texts[i] for i in sentence[:-1]) + "\n" for sentence in sentences)
        )
    np.savez(folder / "ids.npz", allow_pickle=False, **arrays)
    longest = np.maximum(*(arrays[f"{side}.lengths"] for side in SIDES))
    return Corpus(
        dataset=folder / "dataset",
        data=data,
        pieces=pieces,
        vocabulary_size=tokenizer.vocabulary_size,
        vocabulary=vocabulary,
        ids=folder / "ids.npz",
        longest_mean=float(longest.mean()),
        special={"pad": tokenizer.pad_id, "bos": tokenizer.bos_id, "eos": tokenizer.eos_id},
        pad=tokenizer.piece(tokenizer.pad_id),
    )
