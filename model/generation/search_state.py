"""Unfinished sentences of a search, their live hypotheses, and the decoder's state.

    best_continuations ─▶ [ the search chooses ] ─▶ finish, advance, drop ─▶ …

Memories and caches of the networks (`model.generation.member`) may keep the rows of removed
sentences for some steps, after the rows in use. These spare rows limit the number of different
product shapes (see `model.blocks.linear`).

Some tokens are given: the tokens of a sentence's prefix, and EOS at the sentence's limit. At these
positions, all other tokens are excluded; the given token counts towards the score like any other.

Shape suffixes: b unfinished sentences, k hypotheses of each, p tokens so far (BOS first), v target
vocabulary, s source length.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from model.blocks.attention import additive_mask
from model.blocks.cache import capacity_for, compact_rows
from model.config.transformer import DecodingConfig
from model.errors import ModelError, PrefixError
from model.generation.candidates import Candidates, best_candidates
from model.generation.member import Member, joint_logits
from model.networks.transformer import Transformer, Vocabulary

# Hypotheses per chunk of logits on a CPU. A chunk is large enough to reuse the output matrix after
# it is read, and small enough for its logits to stay in the cache until they are read again.
LOGITS_AT_ONCE = 512


@dataclass(frozen=True)
class Hypothesis:
    """A finished translation with its score.

    Attributes:
        ids: tokens without BOS and EOS.
        score: in nats; higher is better.
    """

    ids: tuple[int, ...]
    score: float


def length_penalty(length: int, alpha: float) -> float:
    """Return the length penalty of Wu et al. 2016, eq. 14; `length` counts EOS."""
    return float(((5 + length) / 6) ** alpha)


class SearchState:
    """Unfinished sentences of a search, one per row, the first axis of all tensors.

    Attributes:
        indices: number of each row's sentence in the batch.
        limits: maximum number of tokens of each sentence's translation, EOS included, by the
            sentence's number.
        prefixes: required first tokens of each sentence's translation, by the sentence's number.
    """

    def __init__(
        self,
        models: Sequence[Transformer],
        sources: Sequence[Tensor],
        prefix_bp: Tensor | None,
        k: int,
        decoding: DecodingConfig,
    ) -> None:
        """Encode the sources and give each of them one empty hypothesis.

        Args:
            models: networks whose probabilities are averaged; they share a target vocabulary.
            sources: for each network the same sentences in its tokenization, (b, s), padded at the
                end.
            prefix_bp: prefixes, padded at the end, or None for no prefix.
            k: hypotheses of a sentence.

        Raises:
            ModelError: a source is empty.
            PrefixError: a prefix cannot be continued.
        """
        self.alpha = decoding.length_penalty
        source_bs = sources[0]
        b = len(source_bs)
        self.vocabulary = models[0].vocabulary
        self.indices = list(range(b))
        # Networks may tokenize a source into different lengths; the highest limit applies.
        limits = [
            output_limits(source, model.vocabulary.pad_id, decoding)
            for model, source in zip(models, sources, strict=True)
        ]
        self.limits = [max(of_one) for of_one in zip(*limits, strict=True)]
        self.prefixes = unpadded_prefixes(prefix_bp, b, self.limits, self.vocabulary)
        self.members = [
            Member(model, source, k) for model, source in zip(models, sources, strict=True)
        ]
        vocabulary = self.vocabulary
        self.never = source_bs.new_tensor([vocabulary.pad_id, vocabulary.bos_id])
        self.slots = torch.arange(k, device=source_bs.device)
        # Row k of the mask hides all slots of a position except slot k.
        self.other_slots_kk = additive_mask(self.slots.unsqueeze(1) == self.slots)
        # Tokens and scores of the live hypotheses: initially one empty hypothesis per sentence.
        self.tokens_bkp = source_bs.new_full((b, 1, 1), vocabulary.bos_id)
        self.scores_bk = torch.zeros(b, 1, device=source_bs.device)
        # Cache slot that holds hypothesis k's p-th token.
        self.ancestry_bkp = self.slots.new_empty(b, 1, 0)

    @property
    def length(self) -> int:
        """Number of tokens of each live hypothesis, including the next one, without BOS."""
        return self.tokens_bkp.shape[2]

    @property
    def at_limit(self) -> list[int]:
        """Rows of the sentences whose next token is the last possible one."""
        return [row for row, n in enumerate(self.indices) if self.limits[n] == self.length]

    def best_continuations(self, count: int) -> Candidates:
        """Run one decoder step and return the `count` best continuations of each sentence.

        There are fewer than `count` only if the hypotheses have fewer continuations in total.
        """
        hidden = self._decoder_step()
        given = self._given()
        b, k, _ = hidden[0].shape
        count = min(count, k * self.vocabulary.target_size)
        sentences = max(1, LOGITS_AT_ONCE // k) if hidden[0].device.type == "cpu" else b
        best = []
        for first in range(0, b, sentences):
            part = slice(first, first + sentences)
            given_here = {row - first: given[row] for row in range(b)[part] if row in given}
            logits_bkv = joint_logits(self.members, [h_bkd[part] for h_bkd in hidden])
            scores_bk = self.scores_bk[part]
            best.append(best_candidates(logits_bkv, scores_bk, count, self.never, given_here))
        return Candidates(*(torch.cat(parts) for parts in zip(*best, strict=True)))

    def _decoder_step(self) -> list[Tensor]:
        """Return each network's hidden states (b, k, d) after the newest tokens."""
        b, k, p = self.tokens_bkp.shape
        written_bk1 = self.slots[:k].expand(b, k).unsqueeze(2)
        self.ancestry_bkp = torch.cat([self.ancestry_bkp, written_bk1], dim=2)
        own_past = F.embedding(self.ancestry_bkp, self.other_slots_kk).flatten(2)
        to_come = (capacity_for(p) - p) * len(self.slots)
        ancestry_mask = F.pad(own_past, (0, to_come), value=float("-inf"))
        newest_bk = self.tokens_bkp[:, :, -1]
        return [member.step(newest_bk, ancestry_mask) for member in self.members]

    def finish(
        self, rows: list[int], parents: Tensor, scores: Tensor, found: list[list[Hypothesis]]
    ) -> None:
        """Add finished hypotheses to `found`.

        Args:
            rows: rows of the sentences.
            parents: for each row, the hypothesis that ends with the next token.
            scores: log-probabilities of these hypotheses including that token, before the length
                penalty.
            found: finished hypotheses so far, indexed by the sentence's number.
        """
        if not rows:
            return
        penalty = length_penalty(self.length, self.alpha)
        ids = self.tokens_bkp[rows, parents, 1:].tolist()
        for row, tokens, score in zip(rows, ids, scores.tolist(), strict=True):
            found[self.indices[row]].append(Hypothesis(tuple(tokens), score / penalty))

    def advance(self, parents_bk: Tensor, tokens_bk: Tensor, scores_bk: Tensor) -> None:
        """Replace the live hypotheses, each by a parent with one more token."""
        parents_bkp = parents_bk.unsqueeze(2).expand(-1, -1, self.length)
        self.tokens_bkp = torch.cat(
            [self.tokens_bkp.gather(1, parents_bkp), tokens_bk.unsqueeze(2)], dim=2
        )
        self.ancestry_bkp = self.ancestry_bkp.gather(1, parents_bkp)
        self.scores_bk = scores_bk

    def drop(self, rows: list[int]) -> None:
        """Remove the sentences in these rows; the last rows fill the gaps."""
        if not rows:
            return
        leaving = set(rows)
        kept = len(self.indices) - len(leaving)
        gaps = [row for row in range(kept) if row in leaving]
        movers = [row for row in range(kept, len(self.indices)) if row not in leaving]
        for gap, mover in zip(gaps, movers, strict=True):
            self.indices[gap] = self.indices[mover]
        del self.indices[kept:]

        device = self.tokens_bkp.device
        gaps_at, movers_at = torch.tensor([gaps, movers], device=device, dtype=torch.long)
        self.tokens_bkp = compact_rows(self.tokens_bkp, gaps_at, movers_at, kept)
        self.scores_bk = compact_rows(self.scores_bk, gaps_at, movers_at, kept)
        self.ancestry_bkp = compact_rows(self.ancestry_bkp, gaps_at, movers_at, kept)
        for member in self.members:
            member.compact_rows(gaps_at, movers_at, kept)

    def _given(self) -> dict[int, int]:
        """Return the given next token by row, for the rows that have one."""
        given = dict.fromkeys(self.at_limit, self.vocabulary.eos_id)
        for row, index in enumerate(self.indices):
            prefix = self.prefixes[index]
            if self.length <= len(prefix):
                given[row] = prefix[self.length - 1]
        return given


def output_limits(source_bs: Tensor, pad_id: int, decoding: DecodingConfig) -> list[int]:
    """Return the maximum number of tokens of each sentence's translation, EOS included.

    Raises:
        ModelError: a source is empty.
    """
    lengths = (source_bs != pad_id).sum(dim=1).tolist()
    if 0 in lengths:
        raise ModelError(
            f"Source {lengths.index(0)} of {len(lengths)} has 0 tokens, but it needs at least EOS. "
            "End every source with EOS, even an empty one."
        )
    factor, extra = decoding.max_length_factor, decoding.max_extra_length
    return [int(factor * length) + extra for length in lengths]


def unpadded_prefixes(
    prefix_bp: Tensor | None, sentences: int, limits: list[int], vocabulary: Vocabulary
) -> list[list[int]]:
    """Return each sentence's prefix without padding.

    Raises:
        PrefixError: a prefix cannot be continued.
    """
    if prefix_bp is None:
        return [[] for _ in range(sentences)]
    assert len(prefix_bp) == sentences, "one prefix for each source"
    prefixes = []
    for index, (row, limit) in enumerate(zip(prefix_bp.tolist(), limits, strict=True)):
        prefix = row[: len(row) - _padding(row, vocabulary.pad_id)]
        special = {vocabulary.pad_id, vocabulary.bos_id, vocabulary.eos_id}
        if found := special.intersection(prefix):
            raise PrefixError(
                index,
                f"contains the special ids {sorted(found)}, but BOS, EOS and padding are not part "
                "of a translation. Remove them; put padding only at the end.",
            )
        if len(prefix) >= limit:
            raise PrefixError(
                index,
                f"has {len(prefix)} tokens, but its translation may have at most {limit}, EOS "
                "included. "
                "Shorten the prefix, or raise decoding.max_extra_length.",
            )
        prefixes.append(prefix)
    return prefixes


def _padding(row: list[int], pad_id: int) -> int:
    """Return the number of padding tokens at the end of a row."""
    return next((n for n, token in enumerate(reversed(row)) if token != pad_id), len(row))
