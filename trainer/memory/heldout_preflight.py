"""Preflight of a held-out set: score its widest batches before a run's first step.

    batches of the set ──▶ those with most tokens, with most attention scores ──▶ score each of them
        with the model of a validation ──▶ no side effect, or MemoryPreflightError

Without this check, a run could fail at its first validation, perhaps after hours, because one long
sentence needs too much memory. Every rank tries all of these batches independently, because any
rank may have to score them.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import nn

from data_pipeline.batching.batch import MicroBatch
from trainer.errors import MemoryPreflightError
from trainer.memory.device_memory import (
    TINY_DIVISOR,
    fits,
    has_ample_memory,
    memory_bytes,
    memory_text,
)
from trainer.process import host_memory
from trainer.process.distributed import sum_over_ranks
from trainer.process.placement import Placement
from trainer.tasks.task import Scoring

InferenceModel = Callable[[], AbstractContextManager[nn.Module]]

LINES_NAMED = 3


def preflight_heldout(
    inference_model: InferenceModel, scoring: Scoring, placement: Placement
) -> None:
    """Score the widest batches of a held-out set; a collective.

    It consumes no random numbers and does not affect the training that follows.

    Args:
        inference_model: returns a context with the model for validation, such as
            `TrainingEngine.inference_model`.
        scoring: the batches of the held-out set and how to score them.
        placement: this rank and its device.

    Raises:
        MemoryPreflightError: a rank has too little memory; raised on all ranks.
    """
    memory = memory_bytes(placement)
    most_resident = host_memory.resident_bytes() + memory
    sum_over_ranks(torch.zeros(1), placement)  # barrier: no rank allocates before all have measured
    batches = widest(scoring.batches)
    cuda = [placement.torch_device] if placement.device == "cuda" else []
    with torch.random.fork_rng(cuda), inference_model() as model, torch.inference_mode():
        attempt = _Attempt(model, scoring, placement, most_resident)
        tries: list[Callable[[], None]] = []
        if not attempt.has_ample_memory(batches):
            tries = [*(partial(attempt.score, number) for number in batches), attempt.samples]
        failed = next((n for n, one in enumerate(tries) if not fits(one, placement)), -1)
    del model, attempt, tries
    table = np.zeros((placement.world_size, 2))
    table[placement.rank] = failed, memory
    table = sum_over_ranks(torch.from_numpy(table), placement).numpy()
    ranks = np.flatnonzero(table[:, 0] >= 0).tolist()
    if ranks:
        number, least = (int(value) for value in table[ranks[0]])
        what = "the samples that it shows"
        if number < len(batches):
            what = _described(scoring.batches[batches[number]])
        names = f"Rank {ranks[0]}" if len(ranks) == 1 else f"Ranks {', '.join(map(str, ranks))}"
        raise MemoryPreflightError(
            f"{names} of {placement.world_size} cannot score the validation set, because {what} "
            f"need more memory than available; {memory_text(least, placement)}. Remove the longest "
            "sentences of data.validation and prepare the dataset again, or use a machine with "
            "more memory"
        )


def widest(batches: list[MicroBatch]) -> list[int]:
    """Return the indices of the batches with the most padded tokens and the most attention scores.

    If one batch has both, the list has one index.
    """
    lengths = [[int(f.lengths.max()) for f in batch.fields.values()] for batch in batches]
    rows = np.array([len(batch.pair_ids) for batch in batches])
    tokens = rows * np.array([sum(of_one) for of_one in lengths])
    scores = rows * np.array([sum(of_one) ** 2 for of_one in lengths])
    return list(dict.fromkeys([int(tokens.argmax()), int(scores.argmax())]))


def smaller_batch(batch: MicroBatch, divisor: int) -> tuple[MicroBatch, int]:
    """Return a part of a batch, and the growth of memory from the part to the whole batch.

    The part has `1 / divisor` of the rows. If the batch has fewer than four rows, the part has all
    rows, but only the last `1 / divisor` of each sequence.

    Returns:
        The part and a factor: 1 if memory grows linearly with the batch, 2 if it may grow
        quadratically.
    """
    rows = len(batch.pair_ids)
    if rows >= 4:
        first = rows - rows // divisor
        fields = {name: field.part(first, rows) for name, field in batch.fields.items()}
        return replace(batch, pair_ids=batch.pair_ids[first:], fields=fields), 1
    fields = {}
    for name, field in batch.fields.items():
        stops = field.lengths.astype(np.int64)
        kept = np.maximum(1, stops // divisor)
        fields[name] = field.take_parts(np.arange(rows), stops - kept, stops)
    return replace(batch, fields=fields), 2


@dataclass(frozen=True, eq=False)
class _Attempt:
    """Trials of scoring batches on one rank, independently of the other ranks."""

    model: nn.Module
    scoring: Scoring
    placement: Placement
    most_resident: int

    def has_ample_memory(self, numbers: Sequence[int]) -> bool:
        """Return whether a small part of each batch shows that there is room for all of it.

        Samples need no trial, because few sentences take no more memory than the widest batches.
        """
        if self.placement.device == "cuda" or not self.scoring.scores_parts:
            return False
        return all(map(self._is_small, numbers))

    def _is_small(self, number: int) -> bool:
        batch = self.scoring.batches[number]
        rows = len(batch.pair_ids)
        divisor = TINY_DIVISOR if rows >= TINY_DIVISOR or rows < 4 else 4
        part, power = smaller_batch(batch, divisor)
        growth = (rows / len(part.pair_ids)) if power == 1 else float(divisor**power)
        return has_ample_memory(lambda: self._score(part, number), growth, self.placement)

    def samples(self) -> None:
        """Generate the samples of a validation on rank 0; do nothing on the other ranks."""
        if self.placement.rank == 0:
            self.scoring.samples(self.model)

    def score(self, number: int) -> None:
        """Score a batch; on a CPU, score smaller parts first to predict the memory of the batch.

        Linux kills a process that uses too much host memory, so there would be no error to catch.
        """
        batch = self.scoring.batches[number]
        if self.placement.device == "cuda":
            self._score(batch, number)
            return
        peaks: list[int] = []
        for divisor in (4, 2, 1) if self.scoring.scores_parts else (1,):
            smaller, growth = (batch, 0) if divisor == 1 else smaller_batch(batch, divisor)
            host_memory.restart_peak()
            self._score(smaller, number)
            peaks.append(host_memory.peak_resident_bytes())
            expected = peaks[-1]
            if divisor == 2:
                expected += 2 * growth * (peaks[1] - peaks[0])
            if expected > self.most_resident:
                raise MemoryError

    def _score(self, batch: MicroBatch, number: int) -> None:
        for _ in self.scoring.score(self.model, batch, number, self.placement.torch_device):
            pass


def _described(batch: MicroBatch) -> str:
    longest = " + ".join(f"{int(f.lengths.max()):,} {name}" for name, f in batch.fields.items())
    numbers = np.unique(batch.pair_ids)
    shown = ", ".join(f"{number + 1:,}" for number in numbers[-LINES_NAMED:].tolist())
    more = ", …" if len(numbers) > LINES_NAMED else ""
    return f"{len(batch.pair_ids):,} × ({longest}) tokens at once (lines {shown}{more})"
