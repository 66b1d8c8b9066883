"""Filling in hidden tokens: `MaskFiller.load("runs/masked").fill(["A man is [MASK] a bike."])`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from data_pipeline.tasks.masked_text import SHOWN_MASK, masked_ids
from data_pipeline.tasks.masking import vocabulary_of
from data_pipeline.text_config import TEXT
from data_pipeline.tokenizers.tokenizer import Tokenizer
from model.encoder_only_config import FillConfig
from model.masked_head import MaskedLanguageModel
from trainer.checkpoints.format import Checkpoint
from trainer.errors import TextError
from trainer.inference.texts_at_once import texts_at_once
from trainer.inference.trained_network import Precision, load_network


@dataclass(frozen=True)
class Candidate:
    """A piece that may be what is hidden.

    Attributes:
        text: of the piece alone, without a space around it.
        probability: that the network gives it at this place, 0 to 1.
    """

    piece: str
    text: str
    probability: float


@dataclass(frozen=True)
class Filled:
    """A text with hidden tokens.

    Attributes:
        filled: the text with the likeliest pieces, each told without knowing the others.
        masks: for each [MASK], its candidates, the likeliest first.
    """

    text: str
    filled: str
    masks: list[list[Candidate]]


class MaskFiller:
    """A trained masked model with its tokenizer, ready to fill in texts."""

    def __init__(
        self,
        network: MaskedLanguageModel,
        tokenizer: Tokenizer,
        config: FillConfig,
        checkpoint: Checkpoint,
        damaged: Sequence[str] = (),
    ) -> None:
        """
        Args:
            damaged: what is wrong with newer checkpoints, which were passed over.
        """
        self.network = network.eval()
        self.tokenizer = tokenizer
        self.config = config
        self.checkpoint = checkpoint
        self.damaged = damaged

    @classmethod
    def load(
        cls,
        run: str | Path,
        checkpoint: int | str | None = None,
        precision: Precision = "fp32",
    ) -> Self:
        """Load a run's weights: the newest intact ones, or those of one checkpoint.

        Args:
            checkpoint: a step or the name of an average.

        Raises:
            RunMismatchError: there is no run at this path, or it is of another task.
            CheckpointError: the run has no such checkpoint, or it is damaged.
        """
        found = load_network(Path(run), checkpoint, "cpu", precision).of_task("masked_lm")
        assert isinstance(found.model, MaskedLanguageModel)
        assert isinstance(found.recipe.decoding, FillConfig)
        tokenizer = found.tokenizers[TEXT]
        return cls(found.model, tokenizer, found.recipe.decoding, found.checkpoint, found.damaged)

    @torch.no_grad()
    def fill(self, texts: Sequence[str]) -> list[Filled]:
        """Fill in each text by itself.

        Raises:
            TextError: a text has no [MASK], or more tokens than the network has positions.
        """
        rows = [self.ids(text, number) for number, text in enumerate(texts, start=1)]
        found: list[Filled] = []
        at_once = texts_at_once(
            max(map(len, rows), default=1),
            self.network.encoder.config.heads,
            self.network.output_bias.element_size(),
        )
        for start in range(0, len(rows), at_once):
            some, given = rows[start : start + at_once], texts[start : start + at_once]
            hidden_btd = self._hidden(some)
            found += [
                self._filled(text, ids, hidden_btd[row])
                for row, (text, ids) in enumerate(zip(given, some, strict=True))
            ]
        return found

    def ids(self, text: str, number: int = 1) -> list[int]:
        """What the network reads: BOS, the text's tokens, EOS.

        Args:
            number: of the text, for messages.

        Raises:
            TextError: as for `fill`.
        """
        ids = masked_ids(self.tokenizer, text)
        if vocabulary_of(self.tokenizer).mask not in ids:
            raise TextError(
                f"Text {number} has no {SHOWN_MASK}, so nothing is to be filled in: write one in "
                "the place of a word."
            )
        with_ends = [self.tokenizer.bos_id, *ids, self.tokenizer.eos_id]
        longest = self.network.encoder.context_length
        if len(with_ends) > longest:
            raise TextError(
                f"Text {number} has {len(with_ends)} tokens with BOS and EOS, and the network has "
                f"learned {longest} positions: give a shorter part of it."
            )
        return with_ends

    def _hidden(self, rows: list[list[int]]) -> Tensor:
        """Returns the hidden states of all tokens, [rows, longest, width]."""
        shape = len(rows), max(map(len, rows))
        ids_bt = torch.full(shape, self.tokenizer.pad_id)
        part_bt = torch.full(shape, -1)
        for row, ids in enumerate(rows):
            ids_bt[row, : len(ids)] = torch.tensor(ids)
            part_bt[row, : len(ids)] = 0
        position_bt = torch.arange(shape[1]).expand(shape)
        hidden_btd: Tensor = self.network.encoder(
            ids_bt, torch.zeros_like(ids_bt), position_bt, part_bt
        )
        return hidden_btd

    def _filled(self, text: str, ids: list[int], hidden_td: Tensor) -> Filled:
        vocabulary = vocabulary_of(self.tokenizer)
        places = [place for place, token in enumerate(ids) if token == vocabulary.mask]
        logits_mv = self.network.logits(hidden_td[places]).float()
        probability_mv = logits_mv.softmax(dim=-1)
        # Special pieces are never what is hidden.
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
        return Filled(text, self.tokenizer.decode([filled])[0], masks)

    def _candidate(self, token: int, probability: float) -> Candidate:
        text = self.tokenizer.decode([[token]])[0].strip()
        return Candidate(self.tokenizer.piece(token), text, probability)
