"""Embeddings of sentences: `SentenceEmbedder.load("runs/x").embed(["A dog runs."]).vectors`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from data_pipeline.arrays import FieldArrays
from data_pipeline.tasks.sentence_embedding import cut_to, with_ends
from model.heads.sentence_encoder import SentenceEncoder
from trainer.tasks.rows import sentence_rows
from transloom.inference.batch_size import max_texts_per_batch
from transloom.inference.trained_network import TextReader

TEXTS_OF_A_PART = 2048  # texts that are sorted by length together, to reduce padding


@dataclass(frozen=True, eq=False)
class Embedded:
    """Sentences as vectors.

    Attributes:
        vectors: float32 [sentences, width], each of length 1, so the dot product of two vectors is
            their cosine.
        cut: indices of the sentences that were too long, so that their end was not read.
    """

    vectors: NDArray[np.float32]
    cut: list[int]


class SentenceEmbedder(TextReader[SentenceEncoder]):
    """Trained sentence encoder with its tokenizer."""

    command = "embed"

    @property
    def width(self) -> int:
        """Number of elements of a vector."""
        return self.network.width

    @property
    def longest(self) -> int:
        """Maximum tokens of a sentence that the network reads, including BOS and EOS."""
        return self.network.encoder.context_length

    def embed(self, texts: Sequence[str]) -> Embedded:
        """Return the vector of each sentence; the other sentences affect it only by rounding."""
        parts = list(self.embed_parts(texts))
        vectors = [np.zeros((0, self.width), dtype=np.float32), *(part.vectors for part in parts)]
        cut = [
            number * TEXTS_OF_A_PART + place
            for number, part in enumerate(parts)
            for place in part.cut
        ]
        return Embedded(np.concatenate(vectors), cut)

    def embed_parts(self, texts: Sequence[str]) -> Iterator[Embedded]:
        """Yield the vectors of TEXTS_OF_A_PART sentences at a time.

        The indices in `cut` start at 0 in each part.
        """
        for start in range(0, len(texts), TEXTS_OF_A_PART):
            whole = with_ends(self.tokenizer, list(texts[start : start + TEXTS_OF_A_PART]))
            cut = np.flatnonzero(whole.lengths > self.longest).tolist()
            yield Embedded(self._vectors(cut_to(whole, self.longest, self.tokenizer.eos_id)), cut)

    @torch.no_grad()
    def _vectors(self, sentences: FieldArrays) -> NDArray[np.float32]:
        vectors = np.empty((len(sentences.lengths), self.width), dtype=np.float32)
        order = np.argsort(-sentences.lengths, kind="stable").astype(np.int64)  # longest first
        heads = self.network.config.heads
        while len(order):
            longest = int(sentences.lengths[order[0]])
            some, order = np.split(order, [max_texts_per_batch([longest], self.network, heads)])
            rows = sentence_rows(sentences.take(some), self.tokenizer.pad_id)
            vectors[some] = self.network.embed(*map(torch.from_numpy, rows)).numpy()
        return vectors
