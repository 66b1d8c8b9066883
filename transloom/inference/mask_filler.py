"""Prediction of hidden tokens with a masked language model.

    MaskFiller.load("runs/masked").fill(["A man is [MASK] a bike."])

A run that was trained on sentence pairs also accepts a sentence with its translation, separated by
|||: "A man is [MASK] a bike. ||| Ein Mann fährt Rad."
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from data_pipeline.arrays import flattened
from data_pipeline.config.pair import PairDataConfig
from data_pipeline.tasks.masked_text import BETWEEN_SIDES, SHOWN_MASK, masked_ids, masked_pair_text
from data_pipeline.tasks.masking import vocabulary_of
from model.config.encoder_only import FillConfig
from model.heads.masked_head import MaskedLanguageModel
from trainer.errors import TextError
from trainer.tasks.rows import positions_per_part, sentence_rows
from transloom.inference.batch_size import max_texts_per_batch
from transloom.inference.trained_network import TextReader, TrainedNetwork


@dataclass(frozen=True)
class MaskCandidate:
    """Candidate piece for a hidden token.

    Attributes:
        piece: the piece as the tokenizer names it.
        text: text of the piece, without spaces around it.
        probability: probability of the piece at this position, 0 to 1, as the network predicts it.
    """

    piece: str
    text: str
    probability: float


@dataclass(frozen=True)
class Filled:
    """Text with the predictions of its hidden tokens.

    Attributes:
        filled: the text with the most probable piece in place of each [MASK]. Each piece is
            predicted independently of the others.
        masks: for each [MASK], its candidates, the most probable first.
    """

    text: str
    filled: str
    masks: list[list[MaskCandidate]]


class TextRow(NamedTuple):
    """Text as the network reads it, with BOS and EOS around each side.

    Attributes:
        ids: token ids.
        segments: 0 or 1 for each token: the side to which it belongs.
    """

    ids: list[int]
    segments: list[int]

    @property
    def positions(self) -> list[int]:
        """Positions of the tokens; they restart at 0 with each side."""
        segments = np.array(self.segments)
        begun: list[int] = positions_per_part(np.zeros_like(segments), segments).tolist()
        return begun


class MaskFiller(TextReader[MaskedLanguageModel]):
    """Trained masked language model with its tokenizer, ready to fill in texts.

    Attributes:
        pairs: True if a text may have two sides, separated by |||.
    """

    command = "fill"

    def __init__(self, trained: TrainedNetwork) -> None:
        super().__init__(trained)
        config = trained.recipe.decoding
        assert isinstance(config, FillConfig)
        self.config: FillConfig = config
        self.pairs = isinstance(trained.recipe.data, PairDataConfig)

    @torch.no_grad()
    def fill(self, texts: Sequence[str]) -> list[Filled]:
        """Predict the hidden tokens of each text, independently of the other texts.

        Args:
            texts: each with at least one [MASK]. If `pairs` is true, a text is a source, a target
                that begins with |||, or a source and a target separated by |||.

        Raises:
            TextError: a text has no [MASK], more tokens than the network has positions, or more
                than two sides.
        """
        rows = [self.row(text, number) for number, text in enumerate(texts, start=1)]
        found: list[Filled] = []
        lengths = (len(row.ids) for row in rows)
        at_once = max_texts_per_batch(lengths, self.network, self.network.encoder.config.heads)
        for start in range(0, len(rows), at_once):
            some, given = rows[start : start + at_once], texts[start : start + at_once]
            segments = np.concatenate([row.segments for row in some])
            ids = flattened([row.ids for row in some])
            fed = sentence_rows(ids, self.tokenizer.pad_id, segments)
            hidden_btd = self.network.encoder(*map(torch.from_numpy, fed))
            found += [
                self._filled(text, row.ids, hidden_td)
                for text, row, hidden_td in zip(given, some, hidden_btd, strict=True)
            ]
        return found

    def row(self, text: str, number: int = 1) -> TextRow:
        """Convert a text to the tokens that the network reads.

        Args:
            number: number of the text in messages.

        Raises:
            TextError: as in `fill`.
        """
        sides = text.split(BETWEEN_SIDES) if self.pairs else [text]
        if len(sides) > 2:
            raise TextError(
                f"Text {number} has {BETWEEN_SIDES} {len(sides) - 1} times, but a text has at most "
                f"two sides. Write {BETWEEN_SIDES} once, between the sides."
            )
        if len(sides) == 2:  # the spaces around ||| do not belong to the text
            sides = [sides[0].rstrip(" "), sides[1].lstrip(" ")]
        row = TextRow([], [])
        for segment, side in enumerate(sides):
            if not side and len(sides) == 2:
                continue
            ids = [self.tokenizer.bos_id, *self._side(side, number), self.tokenizer.eos_id]
            row.ids.extend(ids)
            row.segments.extend([segment] * len(ids))
        if vocabulary_of(self.tokenizer).mask not in row.ids:
            raise TextError(
                f"Text {number} has no {SHOWN_MASK}, so there is nothing to fill in. Replace a "
                f"word by {SHOWN_MASK}."
            )
        return row

    def _side(self, text: str, number: int) -> list[int]:
        """Return the ids of one side of a text, without BOS and EOS."""
        ids = masked_ids(self.tokenizer, text)
        longest, tokens = self.network.encoder.context_length, len(ids) + 2
        if tokens > longest:
            raise TextError(
                f"Text {number} has {tokens} tokens with BOS and EOS, but the network has learned "
                f"only {longest} positions. Shorten the text."
            )
        return ids

    def _filled(self, text: str, ids: list[int], hidden_td: Tensor) -> Filled:
        vocabulary = vocabulary_of(self.tokenizer)
        places = [place for place, token in enumerate(ids) if token == vocabulary.mask]
        logits_mv = self.network.logits(hidden_td[places]).float()
        probability_mv = logits_mv.softmax(dim=-1)
        # Special pieces are not candidates, since a hidden token is never one of them.
        ordinary = torch.from_numpy(vocabulary.is_ordinary)
        count = min(self.config.candidates, len(vocabulary.ordinary))
        best = probability_mv.masked_fill(~ordinary, -1.0).topk(count, dim=-1)
        masks = [
            [self._candidate(token, value) for token, value in zip(tokens, values, strict=True)]
            for tokens, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]
        filled = list(ids)
        for place, token in zip(places, best.indices[:, 0].tolist(), strict=True):
            filled[place] = token
        return Filled(text, masked_pair_text(self.tokenizer, filled), masks)

    def _candidate(self, token: int, probability: float) -> MaskCandidate:
        text = self.tokenizer.decode([[token]])[0].strip()
        return MaskCandidate(self.tokenizer.piece(token), text, probability)
