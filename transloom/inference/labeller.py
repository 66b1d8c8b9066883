"""Prediction of labels for texts or for their words.

labeller = Labeller.load("runs/multi30k-language")
labeller.label(["Ein Mann fährt Rad."])[0].label         one label per text
Labeller.load("runs/multi30k-case").tag(["ein mann"])    one label per word
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from data_pipeline.arrays import flattened
from data_pipeline.config.label import LabelsDataConfig, TaggedDataConfig
from data_pipeline.tasks.labelled import encode_words
from model.heads.label_head import LabelModel
from run_store.errors import RunMismatchError
from trainer.tasks.rows import sentence_rows
from transloom.inference.batch_size import max_texts_per_batch
from transloom.inference.trained_network import TextReader, TrainedNetwork


@dataclass(frozen=True)
class LabelledText:
    """Text with its most probable label.

    Attributes:
        probabilities: probability of each label, the most probable first.
        tokens: number of the text's tokens, with BOS and EOS.
        read: number of tokens that the network has read, at most its number of positions.
    """

    text: str
    label: str
    probabilities: dict[str, float]
    tokens: int
    read: int


@dataclass(frozen=True)
class TaggedWord:
    """Word with its most probable label and the label's probability, 0 to 1."""

    word: str
    label: str
    probability: float


@dataclass(frozen=True)
class TaggedText:
    """Text with the labels of its words; words are separated by white space."""

    text: str
    words: list[TaggedWord]


@dataclass(frozen=True)
class _Row:
    """Tokens that the network reads together, and the positions where it predicts a label."""

    ids: list[int]
    places: list[int]


class Labeller(TextReader[LabelModel]):
    """Trained classifier of texts or of words, with its tokenizer.

    Attributes:
        labels: all labels, in the order of the network's outputs.
        of_words: True if the classifier labels words. Call `tag` if it is True, and `label`
            otherwise.
    """

    command = "classify"

    def __init__(self, trained: TrainedNetwork) -> None:
        super().__init__(trained)
        data = trained.recipe.data
        assert isinstance(data, LabelsDataConfig)
        self.labels = data.labels
        self.of_words = isinstance(data, TaggedDataConfig)
        self._lower_cases = isinstance(data, TaggedDataConfig) and all(
            corpus.derived == "case" for corpus in data.train
        )
        self._run = trained.weights.run
        self._longest = self.network.encoder.context_length

    def label(self, texts: Sequence[str]) -> list[LabelledText]:
        """Predict the label of each text independently of the others.

        If a text has more tokens than the network has positions, only its beginning is read.

        Raises:
            RunMismatchError: the run labels words.
        """
        self._require(of_words=False)
        special = self.tokenizer.special_ids
        tokens = [
            [special.bos, *ids.tolist(), special.eos] for ids in self.tokenizer.encode(list(texts))
        ]
        rows = [_Row(ids[: self._longest], [0]) for ids in tokens]
        return [
            self._labelled(text, probabilities_1l[0], len(ids), len(row.ids))
            for text, probabilities_1l, ids, row in zip(
                texts, self._probabilities(rows), tokens, rows, strict=True
            )
        ]

    def tag(self, texts: Sequence[str]) -> list[TaggedText]:
        """Predict the label of each word of each text; words are separated by white space.

        A text with more tokens than the network has positions is read in several parts.

        Raises:
            RunMismatchError: the run labels texts.
        """
        self._require(of_words=True)
        words = [text.split() for text in texts]
        read = [[self._normalised_case(word) for word in of_one] for of_one in words]
        parts = [self._parts(pieces) for pieces in encode_words(self.tokenizer, read)]
        found = iter(self._probabilities([part for of_one in parts for part in of_one]))
        tagged = []
        for text, of_one, rows in zip(texts, words, parts, strict=True):
            probabilities_wl = torch.cat([next(found) for _ in rows])
            best = probabilities_wl.max(dim=1)
            told = zip(of_one, best.indices.tolist(), best.values.tolist(), strict=True)
            tagged_words = [TaggedWord(word, self.labels[n], p) for word, n, p in told]
            tagged.append(TaggedText(text, tagged_words))
        return tagged

    def _normalised_case(self, word: str) -> str:
        return word.lower() if self._lower_cases else word

    def _require(self, *, of_words: bool) -> None:
        if self.of_words != of_words:
            kinds = {False: "texts, so use label()", True: "words, so use tag()"}
            raise RunMismatchError(
                f"{self._run} labels {kinds[self.of_words]} with this run, or name another run"
            )

    def _labelled(self, text: str, probabilities_l: Tensor, tokens: int, read: int) -> LabelledText:
        best = probabilities_l.sort(descending=True, stable=True)
        names = [self.labels[number] for number in best.indices.tolist()]
        probabilities = dict(zip(names, best.values.tolist(), strict=True))
        return LabelledText(text, names[0], probabilities, tokens, read)

    def _parts(self, words: list[list[int]]) -> list[_Row]:
        """Cut a sentence into as few parts as possible, in the same way as validation does.

        Args:
            words: token ids of each word.
        """
        special = self.tokenizer.special_ids
        ids = [special.bos, *(piece for pieces in words for piece in pieces), special.eos]
        firsts = list(accumulate(map(len, words), initial=1))[: len(words)]
        return [
            _Row(
                ids[start : start + self._longest],
                [first - start for first in firsts if start <= first < start + self._longest],
            )
            for start in range(0, len(ids), self._longest)
        ]

    @torch.no_grad()
    def _probabilities(self, rows: list[_Row]) -> list[Tensor]:
        """Return each row's label probabilities at its `places`, fp32 [places, labels]."""
        order = sorted(range(len(rows)), key=lambda number: len(rows[number].ids))
        found: dict[int, Tensor] = {}
        lengths = (len(row.ids) for row in rows)
        at_once = max_texts_per_batch(lengths, self.network, self.network.encoder.config.heads)
        for start in range(0, len(rows), at_once):
            some = order[start : start + at_once]
            of_all_ml = self._of_batch([rows[number] for number in some])
            sizes = [len(rows[number].places) for number in some]
            found |= zip(some, of_all_ml.split(sizes), strict=True)
        return [found[number] for number in range(len(rows))]

    def _of_batch(self, rows: list[_Row]) -> Tensor:
        fed = sentence_rows(flattened([row.ids for row in rows]), self.tokenizer.pad_id)
        hidden_btd = self.network.encoder(*map(torch.from_numpy, fed))
        width = hidden_btd.shape[1]
        places = [n * width + place for n, row in enumerate(rows) for place in row.places]
        hidden_md = hidden_btd.flatten(0, 1)[torch.tensor(places, dtype=torch.int64)]
        return self.network.logits(hidden_md).float().softmax(dim=-1)
