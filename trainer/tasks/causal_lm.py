"""Torch side of causal language modelling: packed documents, scored by loss and perplexity."""

import math
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import nn

from data_pipeline.arrays import ranges
from data_pipeline.batching.batch import MicroBatch
from data_pipeline.batching.task import HeldOut
from data_pipeline.config.data import PackedBatchingConfig
from data_pipeline.config.text import TEXT
from data_pipeline.tokenizers.tokenizer import Tokenizer
from foundation.tasks import TASKS
from model.blocks.packing import packing_of_parts
from model.config.decoder_only import DecoderOnlyConfig, SamplingConfig
from model.generation.sampling import generate
from model.losses.loss import CrossEntropy
from model.networks.decoder_only import DecoderOnly
from run_store.scores import scores_of
from trainer.recipe import TrainingRecipe
from trainer.tasks.batch import DeviceBatch, device_batch
from trainer.tasks.batch_scoring import BatchScoring
from trainer.tasks.flops import PaddedSizes, row_sizes
from trainer.tasks.rows import padded_rows, part_numbers_in_rows, token_positions_in_rows
from trainer.tasks.task import ShownExample, TrainingTask, ValidationResult, loss_scores

# Number of tokens of a held-out document that prompt a sample; at most half of the document.
PROMPT_TOKENS = 32
SAMPLES = 3
SAMPLE_TOKENS = 128


def build_decoder_only(recipe: TrainingRecipe, tokenizers: Mapping[str, Tokenizer]) -> DecoderOnly:
    """Build the decoder-only Transformer."""
    assert isinstance(recipe.model, DecoderOnlyConfig)
    assert isinstance(recipe.batching, PackedBatchingConfig)
    tokenizer = tokenizers[TEXT]
    return DecoderOnly(
        recipe.model,
        tokenizer.vocabulary_size,
        tokenizer.pad_id,
        recipe.batching.context_length,
        recipe.engine.attention,
    )


class CausalLanguageModel(TrainingTask):
    """Task of documents, for a network with the `forward` of DecoderOnly."""

    def collate(self, micro_batch: MicroBatch, device: torch.device) -> DeviceBatch:
        """Return a batch of input tokens, target tokens and part numbers.

        The tensors are int64 [rows, longest row].
        """
        assert micro_batch.rows is not None
        assert micro_batch.starts is not None
        field = micro_batch.fields[TEXT]
        # The stored ids of a part begin with the token that precedes the part. So the first id is
        # not a target, and the last id is not an input.
        sizes = field.lengths.astype(np.int64) - 1
        firsts = np.cumsum(field.lengths, dtype=np.int64) - field.lengths
        of_inputs = ranges(firsts, sizes)
        places, shape = token_positions_in_rows(micro_batch.rows, sizes)
        arrays = {
            "input": field.ids[of_inputs],
            "target": field.ids[of_inputs + 1],
            "part": np.repeat(part_numbers_in_rows(micro_batch.rows), sizes),
        }
        pad_id = self.tokenizers[TEXT].pad_id
        padding = {"input": pad_id, "target": pad_id, "part": -1}
        padded = [padded_rows(arrays[name], places, shape, padding[name]) for name in arrays]
        real = padded[-1] >= 0
        numbers = (micro_batch.pair_ids, micro_batch.starts, micro_batch.rows)
        packing = packing_of_parts(torch.from_numpy(padded[-1]))
        return device_batch(padded, numbers, [array[real] for array in padded], device, packing)

    def sizes(self, micro_batch: MicroBatch) -> PaddedSizes:
        assert micro_batch.rows is not None
        targets = self.targets(micro_batch)
        attention = self.recipe.engine.attention
        return row_sizes(targets, micro_batch.rows, int(targets.sum()), attention)

    def targets(self, micro_batch: MicroBatch) -> np.ndarray:
        return micro_batch.fields[TEXT].lengths - 1

    def scoring(self, heldout: HeldOut) -> "PerplexityScoring":
        return PerplexityScoring(self, heldout)


class PerplexityScoring(BatchScoring[CausalLanguageModel]):
    """Scoring by loss and perplexity over all tokens; each batch has a row of the table."""

    columns = 1

    def __init__(self, task: CausalLanguageModel, heldout: HeldOut) -> None:
        super().__init__(task, heldout)
        self._bytes = sum(len(text.encode()) for text in heldout.texts[TEXT])

    def score(
        self, network: nn.Module, micro_batch: MicroBatch, number: int, device: torch.device
    ) -> Iterator[tuple[int, np.ndarray]]:
        sums = network(*self._task.collate(micro_batch, device).inputs, CrossEntropy())
        yield number, np.array([float(sums.nll)])

    def summarise(self, table: np.ndarray) -> ValidationResult:
        nll = math.fsum(table[:, 0].tolist())
        per_byte = loss_scores(nll / self._bytes)["perplexity"]
        values = {**loss_scores(nll / self._units), "byte_perplexity": per_byte}
        return ValidationResult(scores_of(values, TASKS["causal_lm"].scores))

    def samples(self, network: nn.Module) -> list[ShownExample]:
        """Return the first held-out documents, with greedy continuations of their beginnings."""
        assert isinstance(network, DecoderOnly)
        tokenizer = self._task.tokenizers[TEXT]
        texts = self._heldout.texts[TEXT][:SAMPLES]
        ids = [tokenizer.encode([text])[0].tolist() for text in texts]
        prompts = [row[: min(PROMPT_TOKENS, max(1, len(row) // 2))] for row in ids]
        room = self._task.recipe.batching
        assert isinstance(room, PackedBatchingConfig)
        sampling = SamplingConfig(
            temperature=0, max_new_tokens=max(1, min(SAMPLE_TOKENS, room.context_length // 2))
        )
        with_bos = [[tokenizer.bos_id, *prompt][: room.context_length] for prompt in prompts]
        found = generate(network, with_bos, sampling, tokenizer.eos_id)
        continuations = tokenizer.decode([list(made.ids) for made in found])
        return [
            ShownExample(
                tokenizer.decode([prompt])[0],
                tokenizer.decode([row[len(prompt) : len(prompt) + len(made.ids)]])[0],
                text,
            )
            for prompt, row, made, text in zip(prompts, ids, found, continuations, strict=True)
        ]
