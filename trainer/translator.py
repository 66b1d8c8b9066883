"""Translating with a run: `Translator.load("runs/phrasebook").translate(["je suis étudiant"])`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import torch

from data_pipeline.dataset.heldout import HeldOut, heldout_micro_batches
from data_pipeline.dataset.manifest import SOURCE, TARGET, Manifest
from data_pipeline.dataset.store import open_store
from data_pipeline.pieces.tokenizer import Tokenizer, load_tokenizers
from model.alignment import Alignment, align
from model.config import DecodingConfig
from model.decoding import Hypothesis, beam_search
from model.errors import PrefixError
from model.transformer import Transformer
from trainer.batch import DeviceBatch, to_device
from trainer.checkpoints.format import (
    Checkpoint,
    list_averages,
    list_checkpoints,
    newest_intact,
    step_of,
)
from trainer.checkpoints.reader import CheckpointReader
from trainer.errors import CheckpointError
from trainer.network import build_model
from trainer.recipe import TrainingRecipe
from trainer.run_folder import RunFolder
from trainer.word_alignment import fold, words_read, words_written

TOKENS_PER_BATCH = 4096

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Translation:
    """A translation, its score, and the ids of its pieces, without EOS.

    The score is the log-probability (nats) over the length penalty.
    """

    text: str
    score: float
    ids: tuple[int, ...]


class Translator:
    """A trained model with its tokenizers, ready to translate."""

    def __init__(
        self,
        model: Transformer,
        tokenizers: dict[str, Tokenizer],
        decoding: DecodingConfig,
        checkpoint: Checkpoint,
        damaged: Sequence[str] = (),
    ) -> None:
        self.damaged = damaged  # what is wrong with newer checkpoints, which were passed over
        self.model = model.eval()
        self.decoding = decoding
        self.checkpoint = checkpoint
        self._tokenizers = tokenizers
        self._device = next(model.parameters()).device

    @classmethod
    def load(
        cls,
        run: str | Path,
        checkpoint: int | str | None = None,
        decoding: DecodingConfig | None = None,
        device: str = "cpu",
        precision: Precision = "fp32",
    ) -> Self:
        """A run's weights: the newest intact ones, or those of one checkpoint.

        ``checkpoint`` is a step or the name of an average, such as ``average-of-400-500``.
        ``decoding`` replaces the recipe's beam size and length penalty. ``precision`` is that of
        weights and network; scores are summed in fp32 in any case.

        Raises:
            RunMismatchError: there is no run at this path.
            CheckpointError: the run has no such checkpoint, or it is damaged.
        """
        folder = RunFolder(Path(run))
        folder.card()
        found, damaged = _find_checkpoint(folder, checkpoint)
        recipe = TrainingRecipe.of_checkpoint(found.header.recipe)
        store = open_store(folder.dataset)
        tokenizers = load_tokenizers(store, Manifest.load(store))
        model = build_model(recipe, tokenizers)
        model.load_state_dict(CheckpointReader(found).weights())
        model.to(device, torch.bfloat16 if precision == "bf16" else None)
        return cls(model, tokenizers, decoding or recipe.decoding, found, damaged)

    def translate(self, sentences: Sequence[str], tag: str | None = None) -> list[str]:
        """The best translation of each sentence, by beam search."""
        return [translations[0].text for translations in self.translate_n_best(sentences, tag)]

    def translate_n_best(
        self,
        sentences: Sequence[str],
        tag: str | None = None,
        prefixes: Sequence[str] | None = None,
    ) -> list[list[Translation]]:
        """Up to ``beam_size`` translations of each sentence, best first.

        Args:
            tag: put before every sentence, as a corpus's tag is in training.
            prefixes: what each translation has to begin with. Cut them between words: the pieces
                of a word's beginning are seldom those that the whole word begins with.

        Raises:
            PrefixError: a prefix is longer than the translation may be.
        """
        results: list[list[Translation]] = [[] for _ in sentences]
        for positions, found in self._search(list(sentences), tag, prefixes):
            for position, translations in zip(positions, found, strict=True):
                results[position] = translations
        return results

    def align(
        self,
        sentences: Sequence[str],
        translations: Sequence[Translation],
        tag: str | None = None,
        layer: int | None = None,
    ) -> list[Alignment]:
        """For each piece of a translation the source piece it comes from, by attention.

        Pairs (source position, target position) from 0, where positions are those in `source_ids`
        and in a translation's ids; see `model.alignment` for which ``layer`` is asked.

        Raises:
            ModelError: there is no such decoder layer.
        """
        alignments: list[Alignment] = [() for _ in sentences]
        for positions, batch in self._batches(HeldOut(list(sentences), [""] * len(sentences), tag)):
            ids = [translations[position].ids for position in positions]
            found = align(self.model, batch.source, ids, layer)
            for position, alignment in zip(positions, found, strict=True):
                alignments[position] = alignment
        return alignments

    def align_words(
        self,
        sentences: Sequence[str],
        translations: Sequence[Translation],
        tag: str | None = None,
        layer: int | None = None,
    ) -> list[Alignment]:
        """Like `align`, for words: pairs (source word, target word) from 0, each once, in order.

        A pair of words is one that pieces of theirs are; see `trainer.word_alignment` for what a
        word is. The tag is none, so a word that looked at the tag alone has no pair.
        """
        alignments = self.align(sentences, translations, tag, layer)
        return [
            fold(
                alignment,
                words_read(self._tokenizers[SOURCE], self.source_ids(sentence, tag)),
                words_written(self._tokenizers[TARGET], translation.ids),
            )
            for alignment, sentence, translation in zip(
                alignments, sentences, translations, strict=True
            )
        ]

    def source_ids(self, sentence: str, tag: str | None = None) -> list[int]:
        """The sentence as the model reads it: the tag's id, its pieces' ids, EOS."""
        ids: list[int] = self._tokenizers[SOURCE].encode_field([sentence], tag).ids.tolist()
        return ids

    def source_pieces(self, ids: Sequence[int]) -> list[str]:
        return [self._tokenizers[SOURCE].piece(number) for number in ids]

    def target_pieces(self, ids: Sequence[int]) -> list[str]:
        return [self._tokenizers[TARGET].piece(number) for number in ids]

    def target_text(self, ids: Sequence[int]) -> str:
        """The sentence that target pieces spell; BOS and EOS leave nothing behind."""
        return self._tokenizers[TARGET].decode([list(ids)])[0]

    def _search(
        self, sentences: list[str], tag: str | None, prefixes: Sequence[str] | None
    ) -> Iterator[tuple[list[int], list[list[Translation]]]]:
        """Batches of sentences alike in length: their positions and their translations."""
        targets = [""] * len(sentences) if prefixes is None else list(prefixes)
        for positions, batch in self._batches(HeldOut(sentences, targets, tag)):
            prefix = batch.target_input[:, 1:]  # without BOS, with padding for EOS
            try:
                found = beam_search(self.model, batch.source, self.decoding, prefix)
            except PrefixError as error:
                raise PrefixError(positions[error.number], error.problem) from error
            yield positions, [self._decode(hypotheses) for hypotheses in found]

    def _batches(self, heldout: HeldOut) -> Iterator[tuple[list[int], DeviceBatch]]:
        """The sentences' positions, and their pieces, padded."""
        if not heldout.sources:
            return
        for batch in heldout_micro_batches(heldout, self._tokenizers, TOKENS_PER_BATCH):
            yield (
                batch.pair_ids.tolist(),
                to_device(batch, self.model.vocabulary, self._device),
            )

    def _decode(self, hypotheses: list[Hypothesis]) -> list[Translation]:
        texts = self._tokenizers[TARGET].decode([list(h.ids) for h in hypotheses])
        return [Translation(t, h.score, h.ids) for t, h in zip(texts, hypotheses, strict=True)]


def _find_checkpoint(run: RunFolder, checkpoint: int | str | None) -> tuple[Checkpoint, list[str]]:
    if checkpoint is None:
        newest, damaged = newest_intact(run.checkpoints)
        if newest is None:
            reason = "; ".join(damaged.values()) or "it has not reached its first checkpoint"
            raise CheckpointError(f"{run.path} has no checkpoint to use: {reason}")
        return newest, list(damaged.values())
    steps = {str(step_of(path)): path for path in list_checkpoints(run.checkpoints)}
    averages = {path.name: path for path in list_averages(run.checkpoints)}
    path = (steps | averages).get(str(checkpoint))
    if path is None:
        wanted = f"of step {checkpoint}" if str(checkpoint).isdecimal() else f"named {checkpoint}"
        raise CheckpointError(
            f"{run.path} has no checkpoint {wanted}; it has [{', '.join([*steps, *averages])}]"
        )
    found = Checkpoint(path)
    found.verify()
    return found, []
