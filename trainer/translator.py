"""Translating with a run: `Translator.load("runs/phrasebook").translate(["je suis étudiant"])`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from data_pipeline.dataset.heldout import HeldOut, heldout_micro_batches
from data_pipeline.dataset.manifest import TARGET, Manifest
from data_pipeline.dataset.store import open_store
from data_pipeline.pieces.tokenizer import Tokenizer, load_tokenizers
from model.config import DecodingConfig
from model.decoding import Hypothesis, beam_search
from model.transformer import Transformer
from trainer.batch import to_device
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

TOKENS_PER_BATCH = 4096


@dataclass(frozen=True)
class Translation:
    """A translation and its score: log-probability (nats) over the length penalty."""

    text: str
    score: float


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
    ) -> Self:
        """A run's weights in fp32: the newest intact ones, or those of one checkpoint.

        ``checkpoint`` is a step or the name of an average, such as ``average-of-400-500``.
        ``decoding`` replaces the recipe's beam size and length penalty.

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
        return cls(model.to(device), tokenizers, decoding or recipe.decoding, found, damaged)

    def translate(self, sentences: Sequence[str], tag: str | None = None) -> list[str]:
        """The best translation of each sentence, by beam search."""
        return [translations[0].text for translations in self.translate_n_best(sentences, tag)]

    def translate_n_best(
        self, sentences: Sequence[str], tag: str | None = None
    ) -> list[list[Translation]]:
        """Up to ``beam_size`` translations of each sentence, best first.

        ``tag`` is put before every sentence, as a corpus's tag is in training.
        """
        results: list[list[Translation]] = [[] for _ in sentences]
        for positions, found in self._search(list(sentences), tag):
            for position, translations in zip(positions, found, strict=True):
                results[position] = translations
        return results

    def _search(
        self, sentences: list[str], tag: str | None
    ) -> Iterator[tuple[list[int], list[list[Translation]]]]:
        """Batches of sentences alike in length: their positions and their translations."""
        if not sentences:
            return
        no_targets = HeldOut(sentences, [""] * len(sentences), tag)
        for batch in heldout_micro_batches(no_targets, self._tokenizers, TOKENS_PER_BATCH):
            source = to_device(batch, self.model.vocabulary, self._device).source
            found = beam_search(self.model, source, self.decoding)
            yield batch.pair_ids.tolist(), [self._decode(hypotheses) for hypotheses in found]

    def _decode(self, hypotheses: list[Hypothesis]) -> list[Translation]:
        texts = self._tokenizers[TARGET].decode([list(h.ids) for h in hypotheses])
        return [Translation(t, h.score) for t, h in zip(texts, hypotheses, strict=True)]


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
