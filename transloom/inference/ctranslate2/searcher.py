"""Beam search by CTranslate2 instead of our own search.

    batch ─▶ pieces ─▶ [ CTranslate2, on several threads ] ─▶ pieces, scores ─▶ rescored hypotheses

CTranslate2's beam search with a beam of k works like ours. Each step has 2k candidates; those among
the best k that end with EOS are finished hypotheses. A sentence is complete when it has k finished
hypotheses.

The two searches differ in these points, which this module handles:

  - CTranslate2's score is log-probability / length^α; ours is log-probability /
    ((5 + length) / 6)^α. So we compute the log-probability from CTranslate2's score, and rescore
    and sort the hypotheses by our formula. With float32, the log-probabilities equal ours within
    1e-3. With int8, they are the log-probabilities of a network with rounded weights. If more
    than k hypotheses end, CTranslate2's own score decides which k it returns. We therefore choose
    CTranslate2's exponent such that both divisors grow at the same rate around the length of the
    sources.
  - CTranslate2 has one length limit per batch, and truncates longer hypotheses. Our search has a
    limit per sentence, and forces EOS at that limit. If a hypothesis reaches its sentence's
    limit, our search translates the sentence again.
  - Like our search, CTranslate2 never chooses PAD and BOS, but it renormalises the probabilities of
    the other tokens.
  - CTranslate2 does not translate empty sentences; our search translates them instead.
  - CTranslate2 scores a prefix as 0. We compute the log-probability of the prefix separately, and
    add it to the score. Directly after a prefix, only the best hypothesis can end.

These statements were checked in src/decoding.cc of CTranslate2 4.8.5.
"""

import math
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch

from data_pipeline.batching.batch import MicroBatch
from data_pipeline.config.pair import SOURCE, TARGET
from data_pipeline.tokenizers.tokenizer import Tokenizer
from foundation.process_pool import cores
from model.config.transformer import DecodingConfig
from model.errors import PrefixError
from model.generation.search import Hypothesis, beam_search, length_penalty
from model.generation.search_state import output_limits, unpadded_prefixes
from model.networks.transformer import Transformer
from trainer.tasks.batch import to_device
from transloom.inference.ctranslate2.export_cache import Files
from transloom.inference.ctranslate2.library import library
from transloom.inference.engine_names import ComputeType
from transloom.inference.searchers import Found, Search

# Maximum source tokens, padding included, of a batch that one thread translates.
TOKENS_AT_ONCE = 1024
# Number of batches per thread that are submitted before the first result is awaited.
BATCHES_AHEAD = 2
# Smallest exponent of the length penalty. In CTranslate2's float32, a penalty with this exponent is
# exactly 1, as with 0. But with 0, CTranslate2 would stop as soon as the best hypothesis ends.
NO_PENALTY = 1e-9
# Hypotheses with a lower log-probability contradict a prefix; CTranslate2 scores them as -1e10.
RULED_OUT = -1e9


@dataclass(frozen=True)
class SearchedBatch:
    """Batch that was submitted to CTranslate2.

    Attributes:
        source_bs: source token ids, padded at the end, which our own search reads.
        limits: maximum tokens of each translation, EOS included.
        prefixes: token ids with which each translation must begin, without padding.
        rows: rows of the batch that CTranslate2 translates.
        answers: CTranslate2's pending results, one for each of `rows`.
        prefix_scores: pending scores of the prefixes of `rows`; empty if no row has a prefix.
        exponent: exponent of CTranslate2's length penalty.
    """

    source_bs: torch.Tensor
    limits: list[int]
    prefixes: list[list[int]]
    rows: list[int]
    answers: list[Any]
    prefix_scores: list[Any]
    exponent: float


class CTranslate2Searcher:
    """Searcher with a CTranslate2 model and the network from which the model was converted."""

    def __init__(
        self,
        network: Transformer,
        tokenizers: dict[str, Tokenizer],
        files: Callable[[], Files],
        positions: int,
        compute_type: ComputeType,
        threads: int | None = None,
    ) -> None:
        """Prepare the searcher; the model is loaded on first use.

        Args:
            network: network of our own search, for sentences that CTranslate2 would translate
                differently.
            tokenizers: the tokenizer of each field, by the field's name.
            files: returns the model's files, by name.
            positions: number of rows of the model's position table; our own search translates
                longer sentences.
            threads: number of computing threads, or None for one per available core.
        """
        self.engine: str | None = f"ctranslate2-{compute_type}"
        self._network = network
        self._source = _Pieces(tokenizers[SOURCE])
        self._target = _Pieces(tokenizers[TARGET])
        self._files = files
        self._positions = positions
        self._compute_type = compute_type
        self._threads = cores() if threads is None else threads

    def search(self, decoding: DecodingConfig, batches: Sequence[MicroBatch]) -> Iterator[Found]:
        """Search as described in `transloom.inference.searchers.Search`."""
        return self._search(self._on_all_cores, 1, decoding, batches)

    def prepare(self) -> None:
        """Convert the model unless it is cached (see `export_cache`), and load it."""
        _ = self._on_all_cores

    @contextmanager
    def in_processes(self, processes: int) -> Generator[Search]:
        """Yield a search that translates in several threads of this process.

        Args:
            processes: number of threads that translate in parallel; they share the cores.
        """
        if processes == 1:
            yield self.search
            return
        yield partial(self._search, self._translator(processes), processes)

    def processes_for(self, sentences: int, bytes_of_longest: int = 0) -> int:
        """Return the configured number of threads, because threads share the weights."""
        return self._threads

    @cached_property
    def _on_all_cores(self) -> Any:
        return self._translator(1)

    def _translator(self, workers: int) -> Any:
        return library().Translator(
            "model",
            device="cpu",
            compute_type=self._compute_type.value,
            inter_threads=workers,
            intra_threads=max(1, self._threads // workers),
            files=self._files(),
        )

    def _search(
        self,
        translator: Any,
        workers: int,
        decoding: DecodingConfig,
        batches: Sequence[MicroBatch],
    ) -> Iterator[Found]:
        asked: deque[SearchedBatch] = deque()
        for batch in batches:
            asked.append(self._ask(translator, decoding, batch))
            if len(asked) > BATCHES_AHEAD * workers:
                yield self._found(decoding, asked.popleft())
        while asked:
            yield self._found(decoding, asked.popleft())

    def _ask(self, translator: Any, decoding: DecodingConfig, batch: MicroBatch) -> SearchedBatch:
        vocabulary = self._network.vocabulary
        tensors = to_device(batch, vocabulary, torch.device("cpu"))
        prefix_bp = tensors.target_input[:, 1:]  # without BOS, with padding instead of EOS
        limits = output_limits(tensors.source, vocabulary.pad_id, decoding)
        try:
            prefixes = unpadded_prefixes(prefix_bp, len(limits), limits, vocabulary)
        except PrefixError as error:
            raise PrefixError(int(batch.pair_ids[error.index]), error.problem) from error
        lengths = batch.fields[SOURCE].lengths.tolist()
        rows = [
            row
            for row, (length, limit) in enumerate(zip(lengths, limits, strict=True))
            if length > 1 and max(length, limit) <= self._positions
        ]
        # Leave out EOS, which CTranslate2 adds.
        sources = [
            self._source.of(tensors.source[row, : lengths[row] - 1].tolist()) for row in rows
        ]
        begun = [self._target.of(prefixes[row]) for row in rows]
        exponent = exponent_near(decoding.length_penalty, sum(lengths) / len(lengths))
        prefix_scores: list[Any] = []
        if any(begun):  # for each prefix, the log-probabilities of its tokens and of EOS
            prefix_scores = translator.score_batch(
                sources,
                begun,
                max_batch_size=TOKENS_AT_ONCE,
                batch_type="tokens",
                asynchronous=True,
                max_input_length=0,
            )
        return SearchedBatch(
            tensors.source,
            limits,
            prefixes,
            rows,
            self._answers(
                translator, decoding, exponent, sources, begun, [limits[row] for row in rows]
            ),
            prefix_scores,
            exponent,
        )

    def _answers(
        self,
        translator: Any,
        decoding: DecodingConfig,
        exponent: float,
        sources: list[list[str]],
        begun: list[list[str]],
        limits: list[int],
    ) -> list[Any]:
        if not sources:
            return []
        never = {self._network.vocabulary.pad_id, self._network.vocabulary.bos_id}
        answers: list[Any] = translator.translate_batch(
            sources,
            begun if any(begun) else None,
            max_batch_size=TOKENS_AT_ONCE,
            batch_type="tokens",
            asynchronous=True,
            beam_size=decoding.beam_size,
            num_hypotheses=decoding.beam_size,
            length_penalty=exponent,
            suppress_sequences=[self._target.of([number]) for number in never],
            return_end_token=True,
            max_input_length=0,  # no truncation
            max_decoding_length=max(limits),
            min_decoding_length=0,
            return_scores=True,
        )
        return answers

    def _found(self, decoding: DecodingConfig, asked: SearchedBatch) -> Found:
        """Return the hypotheses of a batch's sentences, in the order of the batch."""
        found: Found = [[] for _ in asked.limits]
        for index, (row, answer) in enumerate(zip(asked.rows, asked.answers, strict=True)):
            of_prefix = 0.0
            if asked.prefixes[row]:
                of_prefix = sum(asked.prefix_scores[index].result().log_probs[:-1])  # without EOS
            found[row] = self._rescored(
                decoding, asked.exponent, answer.result(), asked.limits[row], of_prefix
            )
        if ours := [row for row, hypotheses in enumerate(found) if not hypotheses]:
            again = self._search_with_own_engine(decoding, asked, ours)
            for row, hypotheses in zip(ours, again, strict=True):
                found[row] = hypotheses
        return found

    def _rescored(
        self,
        decoding: DecodingConfig,
        exponent: float,
        result: Any,
        limit: int,
        of_prefix: float,
    ) -> list[Hypothesis]:
        """Return a sentence's hypotheses, sorted by our score.

        The list is empty if our own search must translate the sentence.

        Args:
            exponent: exponent of CTranslate2's length penalty.
            limit: the sentence's maximum number of tokens, EOS included.
            of_prefix: log-probability of the prefix, or 0 without a prefix.
        """
        hypotheses = []
        for pieces, score in zip(result.hypotheses, result.scores, strict=True):
            length = len(pieces)  # EOS included
            ids = self._target.ids(pieces)
            if length >= limit or ids[-1] != self._network.vocabulary.eos_id:
                return []
            log_probability = score * length**exponent
            if not math.isfinite(log_probability):
                return []
            if log_probability > RULED_OUT:
                penalty = length_penalty(length, decoding.length_penalty)
                ours = (log_probability + of_prefix) / penalty
                hypotheses.append(Hypothesis(tuple(ids[:-1]), ours))
        hypotheses.sort(key=lambda hypothesis: hypothesis.score, reverse=True)
        return hypotheses

    def _search_with_own_engine(
        self, decoding: DecodingConfig, asked: SearchedBatch, rows: list[int]
    ) -> list[list[Hypothesis]]:
        pad = self._network.vocabulary.pad_id
        source_bs = asked.source_bs[rows]
        longest = int((source_bs != pad).sum(dim=1).max())
        prefixes = [asked.prefixes[row] for row in rows]
        width = max(map(len, prefixes))
        padded = [[*prefix, *[pad] * (width - len(prefix))] for prefix in prefixes]
        prefix_bp = torch.tensor(padded, dtype=torch.long).view(len(rows), width)
        return beam_search(self._network, source_bs[:, :longest], decoding, prefix_bp)


class _Pieces:
    """Pieces of a tokenizer; CTranslate2 reads and writes pieces instead of ids."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._pieces = [tokenizer.piece(number) for number in range(tokenizer.vocabulary_size)]
        self._ids = {piece: number for number, piece in enumerate(self._pieces)}

    def of(self, ids: Sequence[int]) -> list[str]:
        return [self._pieces[number] for number in ids]

    def ids(self, pieces: Sequence[str]) -> list[int]:
        return [self._ids[piece] for piece in pieces]


def exponent_near(alpha: float, length: float) -> float:
    """Return x such that length^x grows at the relative rate of ((5 + length) / 6)^α.

    At the given length, x is α · length / (length + 5). The result is at least NO_PENALTY, because
    CTranslate2 would stop earlier with 0.
    """
    return max(NO_PENALTY, alpha * length / (length + 5))
