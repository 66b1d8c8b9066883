"""Translation with a run: `Translator.load("runs/phrasebook").translate(["je suis étudiant"])`."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Self

from data_pipeline.batching.batch import MicroBatch
from data_pipeline.batching.task import HeldOut
from data_pipeline.config.pair import SOURCE, TARGET, PairDataConfig
from data_pipeline.tasks.translation import heldout_pairs, pair_micro_batches
from data_pipeline.tokenizers.tokenizer import Tokenizer
from model.config.transformer import DecodingConfig
from model.generation.search import Hypothesis, best_by_penalty
from model.inspection.alignment import Alignment, align
from model.networks.transformer import Transformer
from run_store.checkpoints.checkpoint import Checkpoint
from trainer.errors import TranslationError
from trainer.process.host_memory import available_bytes
from trainer.tasks.batch import to_device
from trainer.tasks.probing import pieces_read
from transloom.inference.engine_names import ComputeType, Engine, Precision
from transloom.inference.engines import require_possible, searcher_of
from transloom.inference.ensemble import Ensemble, join
from transloom.inference.searchers import Search, Searcher, network_searcher
from transloom.inference.sentence_memory import (
    LongSentenceError,
    SentenceLimit,
    SentenceMemory,
    count_tokens,
    parts_of,
)
from transloom.inference.trained_network import TrainedNetwork, Weights, load_network
from transloom.inference.translation import Translation, joined
from transloom.inference.word_alignment import fold, words_read, words_written

# Limits of a batch: its number of source tokens, the bytes of the decoder's cache for that number
# of positions, and the bytes of one layer's attention scores. A batch stays below all three limits.
# With a wide model, batches of more than 2,000 tokens are no faster than smaller ones. With a tiny
# model, batches of up to 8,000 tokens are faster.
TOKENS_PER_BATCH = 8192
CACHE_BYTES_PER_BATCH = 2**28
BYTES_OF_SCORES = 2**28

# Callback with the number of translated sentences.
Report = Callable[[int], None]


@dataclass(frozen=True)
class LoadedRun:
    """Facts about the run from which a translator was loaded.

    Attributes:
        weights: identity of the weights, or None if they were not loaded from a run.
        passed_over: reasons why checkpoints that are normally preferred were not loaded.
        longest_trained: maximum tokens of a source that the model was trained on. None means that
            it is unknown, and only memory limits sentences.
        sentences_before: number of preceding sentences that the model reads as context, see
            `data_pipeline.corpora.context`. The caller must add them to each sentence.
    """

    weights: Weights | None = None
    passed_over: Sequence[str] = ()
    longest_trained: int | None = None
    sentences_before: int = 0


NO_RUN = LoadedRun()


class Translator:
    """Trained model with its tokenizers, ready to translate.

    Attributes:
        precision: number format of the weights and the network.
        engine: name of the engine and its number format, or None for our own search.
    """

    def __init__(
        self,
        model: Transformer,
        tokenizers: dict[str, Tokenizer],
        decoding: DecodingConfig,
        checkpoint: Checkpoint,
        loaded: LoadedRun = NO_RUN,
        searcher: Searcher | None = None,
        ensemble: Ensemble | None = None,
    ) -> None:
        """Create a translator from a loaded model; use `load` to load a run.

        Args:
            tokenizers: tokenizers of the source and target fields, and of the other source fields
                of an ensemble, by the field's name.
            checkpoint: the model's checkpoint.
            searcher: finds hypotheses, or None for our own search over the model.
            ensemble: the ensemble that translates, whose first member is `model`; None for one run.
        """
        self.passed_over = loaded.passed_over
        self.model = model.eval()
        self.decoding = decoding
        self.checkpoint = checkpoint
        self._tokenizers = tokenizers
        self._device = next(model.parameters()).device
        self._weights = loaded.weights
        self._longest_trained = loaded.longest_trained
        self._searcher = searcher or network_searcher(self.model, loaded.weights)
        self._active_search: Search = self._searcher.search
        self.precision: Precision = loaded.weights.precision if loaded.weights else "fp32"
        self.engine = self._searcher.engine
        self.ensemble = ensemble
        self.sentences_before = loaded.sentences_before

    @classmethod
    def load_ensemble(
        cls,
        runs: Sequence[tuple[str | Path, int | str | None]],
        decoding: DecodingConfig | None = None,
        device: str = "cpu",
        precision: Precision = "fp32",
    ) -> Self:
        """Load several runs that translate together, by the mean of their predicted probabilities.

        Args:
            runs: pairs of a run and its checkpoint, which is given as in `load`. The first run's
                recipe determines the search. A single run is loaded as by `load`.
            decoding, device, precision: as in `load`.

        Raises:
            RunMismatchError, CheckpointError: as in `load`. RunMismatchError is also raised if the
                runs cannot be combined; see `ensemble.join`.
        """
        if len(runs) == 1:
            ((run, checkpoint),) = runs
            return cls.load(run, checkpoint, decoding, device, precision)
        networks = [
            load_network(Path(run), checkpoint, device, precision).of_command("translate")
            for run, checkpoint in runs
        ]
        return cls._of_networks(networks, decoding, join(networks))

    @classmethod
    def load(
        cls,
        run: str | Path,
        checkpoint: int | str | None = None,
        decoding: DecodingConfig | None = None,
        device: str = "cpu",
        precision: Precision = "fp32",
        engine: Engine = Engine.TORCH,
        compute_type: ComputeType | None = None,
        threads: int | None = None,
    ) -> Self:
        """Load the newest intact weights of a run, or those of one checkpoint.

        Args:
            checkpoint: a step or the name of an average, such as `average-of-400-500`; None for the
                newest.
            decoding: replaces the recipe's decoding options, such as beam size and length penalty.
            precision: number format of the weights and the network; scores are always summed in
                fp32.
            engine: our own search, or CTranslate2, an optional dependency, which uses the CPU.
            compute_type: number format in which CTranslate2 multiplies, or None for float32.
            threads: number of CTranslate2's threads, or None for one per core that this process may
                use. Our own search uses torch's threads.

        Raises:
            RunMismatchError: the path has no run, or its run was not trained for translation.
            CheckpointError: the run has no such checkpoint, or it is damaged.
            EngineError: the engine is not installed, or does not support an option.
            ModelError: the engine does not support the network; the message names the reason.
        """
        require_possible(engine, compute_type, device, precision)
        found = load_network(Path(run), checkpoint, device, precision).of_command("translate")
        return cls._of_networks(
            [found], decoding, searcher_of(engine, found, compute_type, threads)
        )

    @classmethod
    def _of_networks(
        cls,
        networks: Sequence[TrainedNetwork],
        decoding: DecodingConfig | None,
        search: Searcher | Ensemble,
    ) -> Self:
        """Create a translator from a network and its searcher, or from an ensemble's networks."""
        found = networks[0]
        recipe_decoding, data = found.recipe.decoding, found.recipe.data
        assert isinstance(found.model, Transformer)
        assert isinstance(recipe_decoding, DecodingConfig)
        assert isinstance(data, PairDataConfig)
        ensemble = search if isinstance(search, Ensemble) else None
        passed_over = [reason for network in networks for reason in network.passed_over]
        longest = ensemble.longest_trained if ensemble else data.max_source_length
        return cls(
            found.model,
            ensemble.tokenizers if ensemble else found.tokenizers,
            decoding or recipe_decoding,
            found.checkpoint,
            LoadedRun(found.weights, passed_over, longest, data.sentences_before),
            search.searcher if isinstance(search, Ensemble) else search,
            ensemble,
        )

    def prepare(self) -> None:
        """Do work in advance that would otherwise delay the first translation.

        For example, the model of another engine is converted and loaded.

        Raises:
            OSError: the model cannot be stored.
        """
        self._searcher.prepare()

    @contextmanager
    def in_processes(self, processes: int) -> Iterator[None]:
        """Translate in this number of processes on the host's CPUs during the context.

        The processes share the cores. With one process, this process translates. A script that uses
        several processes needs `if __name__ == "__main__":`, since the processes import the script.

        Raises:
            TranslationError: a process was killed.
        """
        with self._searcher.in_processes(processes) as self._active_search:
            try:
                yield
            finally:
                self._active_search = self._searcher.search

    @property
    def tokenizers(self) -> tuple[Tokenizer, ...]:
        """Tokenizers of source and target; a single one if both sides share it."""
        return tuple(dict.fromkeys((self._tokenizers[SOURCE], self._tokenizers[TARGET])))

    @property
    def members(self) -> list[tuple[Weights, Checkpoint]]:
        """Weights and checkpoint of each network that translates; an ensemble has several."""
        if self.ensemble is not None:
            return list(zip(self.ensemble.members, self.ensemble.checkpoints, strict=True))
        assert self._weights is not None, "only weights that were loaded have a name"
        return [(self._weights, self.checkpoint)]

    @property
    def memory(self) -> SentenceMemory:
        """Memory that a sentence needs with the current `decoding`."""
        return SentenceMemory(
            self.model.config,
            self.decoding,
            self.model.output_weight.element_size(),
            self.ensemble.other_configs if self.ensemble else (),
        )

    def longest_sentence(self, max_tokens: int | None = None) -> SentenceLimit:
        """Return the maximum tokens of a sentence, and the reason for this limit.

        The limit is the maximum length in training, or less if memory does not suffice.

        Args:
            max_tokens: replaces the maximum length in training; None keeps it.
        """
        in_memory = self.memory.longest(available_bytes())
        wanted = self._longest_trained if max_tokens is None else max_tokens
        if wanted is None or in_memory < wanted:
            return SentenceLimit(in_memory, "memory")
        return SentenceLimit(wanted, "training" if max_tokens is None else "wish")

    def count_tokens(self, sentences: Sequence[str], tag: str | None = None) -> list[int]:
        """Return the number of tokens of each sentence as the model reads it, with tag and EOS.

        For an ensemble with several source tokenizers, return the largest number.
        """
        counts = [
            count_tokens(tokenizer, sentences, tag)
            for field, tokenizer in self._tokenizers.items()
            if field != TARGET
        ]
        return [max(of_one) for of_one in zip(*counts, strict=True)]

    def check_lengths(
        self, sentences: Sequence[str], tag: str | None = None, max_tokens: int | None = None
    ) -> None:
        """Check that no sentence is too long.

        Args:
            max_tokens: as in `longest_sentence`.

        Raises:
            LongSentenceError: some sentences are too long.
        """
        limit = self.longest_sentence(max_tokens)
        counts = self.count_tokens(sentences, tag)
        too_long = [(n, count) for n, count in enumerate(counts) if count > limit.tokens]
        if too_long:
            raise LongSentenceError(too_long, limit)

    def split(self, sentence: str, max_tokens: int, tag: str | None = None) -> list[str]:
        """Split a sentence into parts of at most `max_tokens` tokens; see `parts_of`."""
        return parts_of(sentence, max_tokens, lambda texts: self.count_tokens(texts, tag))

    def processes_for(self, sentences: int, tokens_of_longest: int = 0) -> int:
        """Return the number of processes that takes the least time; see `in_processes`.

        Args:
            sentences: number of sentences to translate.
            tokens_of_longest: number of tokens of the longest sentence.
        """
        return self._searcher.processes_for(sentences, self.memory.bytes(tokens_of_longest))

    def joined(self, parts: Sequence[Translation]) -> Translation:
        """Join the translations of a sentence's parts; see `translation.joined`."""
        return joined(parts, self.decoding.length_penalty)

    def translate(
        self,
        sentences: Sequence[str],
        tag: str | None = None,
        report: Report | None = None,
        max_tokens: int | None = None,
    ) -> list[str]:
        """Return the best translation of each sentence, by beam search; see `translate_n_best`."""
        found = self.translate_n_best(
            sentences, tag, n_best=1, report=report, max_tokens=max_tokens
        )
        return [translations[0].text for translations in found]

    def translate_n_best(
        self,
        sentences: Sequence[str],
        tag: str | None = None,
        prefixes: Sequence[str] | None = None,
        n_best: int | None = None,
        report: Report | None = None,
        max_tokens: int | None = None,
    ) -> list[list[Translation]]:
        """Return several translations of each sentence, the best first.

        Args:
            tag: tag that is put before every sentence, as a corpus's tag is in training.
            prefixes: the required beginning of each translation; "" requires none. Each should end
                with a whole word, because the tokens of a part of a word seldom equal the first
                tokens of the whole word.
            n_best: maximum number of translations per sentence, or None for `beam_size`.
            report: called with the number of translated sentences; the longest are translated
                first.
            max_tokens: maximum tokens of a sentence, tag and EOS included, or None for the maximum
                length in the model's training.

        Raises:
            LongSentenceError: a sentence has too many tokens; nothing was translated.
            PrefixError: a prefix is longer than the translation may be.
        """
        self.check_lengths(sentences, tag, max_tokens)
        targets = [""] * len(sentences) if prefixes is None else list(prefixes)
        heldout = heldout_pairs(list(sentences), targets, tag)
        return self._search(heldout, self.decoding, lambda found: found[:n_best], report)

    def translate_by_penalties(
        self,
        sentences: Sequence[str],
        penalties: Sequence[float],
        tag: str | None = None,
        report: Report | None = None,
    ) -> list[list[str]]:
        """Return the best translation of each sentence for each length penalty, by a single search.

        For each length penalty, the translations are the same as from `translate` with that penalty
        in `decoding`.

        Args:
            report: called with the number of translated sentences; the longest are translated
                first.

        Returns:
            For each length penalty, the translations in the order of the sentences.

        Raises:
            LongSentenceError: memory does not suffice for a sentence; nothing was translated.
        """
        self.check_lengths(sentences, tag, sys.maxsize)
        plain = self.decoding.model_copy(update={"length_penalty": 0.0})

        def best(found: list[Hypothesis]) -> list[Hypothesis]:
            return [best_by_penalty(found, alpha) for alpha in penalties]

        heldout = heldout_pairs(list(sentences), [""] * len(sentences), tag)
        results = self._search(heldout, plain, best, report)
        return [[by_penalty[n].text for by_penalty in results] for n in range(len(penalties))]

    def align(
        self,
        sentences: Sequence[str],
        translations: Sequence[Translation],
        tag: str | None = None,
    ) -> list[Alignment]:
        """Find the source token that each token of a translation corresponds to, by attention.

        The attention is that of the default layer of `model.inspection.alignment`.

        Args:
            translations: one translation of each sentence.

        Returns:
            For each translation, pairs (source position, target position), counted from 0. They are
            indices of `source_ids` and of the translation's `ids`.

        Raises:
            TranslationError: this is an ensemble, whose models have separate attention.
        """
        if self.ensemble is not None:
            raise TranslationError(
                f"{self.ensemble.name} has no alignment, because its models have separate "
                "attention. Name a single run to get alignments"
            )
        alignments: list[Alignment] = [() for _ in sentences]
        for batch in self._batches(heldout_pairs(list(sentences), [""] * len(sentences), tag)):
            ids = [translations[position].ids for position in batch.pair_ids]
            source = to_device(batch, self.model.vocabulary, self._device).source
            found = align(self.model, source, ids)
            for position, alignment in zip(batch.pair_ids, found, strict=True):
                alignments[position] = alignment
        return alignments

    def align_words(
        self,
        sentences: Sequence[str],
        translations: Sequence[Translation],
        tag: str | None = None,
    ) -> list[Alignment]:
        """Return alignments of words: sorted pairs (source word, target word), counted from 0.

        The arguments and errors are those of `align`. Two words are paired if any of their tokens
        are paired. Words are defined in `transloom.inference.word_alignment`. The tag is not a
        word, so a target word that attends only to the tag has no pair.
        """
        alignments = self.align(sentences, translations, tag)
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

    def align_words_n_best(
        self,
        sentences: Sequence[str],
        best: Sequence[Sequence[Translation]],
        tag: str | None = None,
    ) -> list[list[Alignment]]:
        """Align the words of every translation of each sentence; see `align_words`."""
        repeated = [s for s, of_one in zip(sentences, best, strict=True) for _ in of_one]
        alignments = iter(self.align_words(repeated, list(chain.from_iterable(best)), tag))
        return [list(islice(alignments, len(of_one))) for of_one in best]

    def source_ids(self, sentence: str, tag: str | None = None) -> list[int]:
        """Return the ids that the model reads for a sentence: tag, tokens and EOS."""
        ids: list[int] = self._tokenizers[SOURCE].encode_field([sentence], tag).ids.tolist()
        return ids

    def source_texts(self, sentence: str, tag: str | None = None) -> list[str]:
        """Return the tokens of `source_ids` for display; unknown tokens are shown as their text."""
        return pieces_read(self._tokenizers[SOURCE], sentence, self.source_ids(sentence, tag))

    def source_pieces(self, ids: Sequence[int]) -> list[str]:
        return [self._tokenizers[SOURCE].piece(token_id) for token_id in ids]

    def target_pieces(self, ids: Sequence[int]) -> list[str]:
        return [self._tokenizers[TARGET].piece(token_id) for token_id in ids]

    def target_text(self, ids: Sequence[int]) -> str:
        """Decode target tokens into a sentence; BOS and EOS are dropped."""
        return self._tokenizers[TARGET].decode([list(ids)])[0]

    def _search(
        self,
        heldout: HeldOut,
        decoding: DecodingConfig,
        choose: Callable[[list[Hypothesis]], list[Hypothesis]],
        report: Report | None,
    ) -> list[list[Translation]]:
        """Search batch by batch, and return the chosen translations of each sentence.

        Args:
            heldout: the sentences, with prefixes as targets.
            choose: returns the hypotheses to keep of all hypotheses of a sentence.
            report: called with the number of translated sentences after each batch.
        """
        # The longest sentences come first, so that all processes finish at about the same time.
        batches = self._batches(heldout)[::-1]
        results: list[list[Translation]] = [[] for _ in range(len(heldout))]
        done = 0
        found = self._active_search(decoding, batches)
        for batch, hypotheses in zip(batches, found, strict=True):
            translations = self._decode([choose(of_one) for of_one in hypotheses])
            for position, of_one in zip(batch.pair_ids.tolist(), translations, strict=True):
                results[position] = of_one
            done += len(translations)
            if report is not None:
                report(done)
        return results

    def _batches(self, heldout: HeldOut) -> list[MicroBatch]:
        if not len(heldout):
            return []
        # Each source tokenizer of an ensemble encodes the same sentences, with the same tag.
        others = [field for field in self._tokenizers if field not in heldout.texts]
        tag = heldout.tags.get(SOURCE)
        heldout = HeldOut(
            {**heldout.texts, **dict.fromkeys(others, heldout.texts[SOURCE])},
            {**heldout.tags, **({} if tag is None else dict.fromkeys(others, tag))},
        )
        return pair_micro_batches(
            heldout,
            self._tokenizers,
            self._tokens_per_batch(),
            max(1, BYTES_OF_SCORES // self.memory.of_score),
        )

    def _tokens_per_batch(self) -> int:
        return min(TOKENS_PER_BATCH, max(1, CACHE_BYTES_PER_BATCH // self.memory.of_position))

    def _decode(self, found: list[list[Hypothesis]]) -> list[list[Translation]]:
        # Decode all sentences in one call, since the tokenizer starts threads in each call.
        texts = iter(self._tokenizers[TARGET].decode([list(h.ids) for one in found for h in one]))
        return [[Translation(next(texts), h.score, h.ids) for h in one] for one in found]
