"""Searching for a translation: greedy and beam search, piece by piece until EOS.

    source ids ─▶ encode once ─▶ [ decode one step ─▶ log-probabilities ─▶ choose ] … ─▶ hypotheses

A hypothesis' score is its log-probability divided by the length penalty of Wu et al. 2016
(eq. 14), lp(Y) = ((5 + |Y|) / 6)^α, where |Y| counts EOS. Padding and BOS are never chosen; the
probabilities of the other pieces are not renormalised for that.

A sentence's output, EOS included, may be `max_length_factor` times its source (EOS included) plus
`max_extra_length` pieces long; the last of these is forced to be EOS. The limit is the sentence's
own, so that its translation does not depend on the batch. Finished sentences leave the batch.

Shape suffixes: b unfinished sentences, k hypotheses of each, c candidates, p pieces so far
(BOS first), v target pieces, s source length.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from model.attention import KeyValue
from model.cache import SelfAttentionCache, fill_gaps
from model.config import DecodingConfig
from model.errors import ModelError
from model.transformer import Transformer


@dataclass(frozen=True)
class Hypothesis:
    """A translation: its pieces without BOS and EOS, and its score (nats, higher is better)."""

    ids: tuple[int, ...]
    score: float


def length_penalty(length: int, alpha: float) -> float:
    """Wu et al. 2016, eq. 14; `length` counts EOS."""
    return float(((5 + length) / 6) ** alpha)


@torch.no_grad()
def greedy_search(
    model: Transformer, source_bs: Tensor, decoding: DecodingConfig
) -> list[Hypothesis]:
    """Returns, for each source, the translation made of the most probable piece at every step.

    The model must be in evaluation mode. `decoding.beam_size` is not looked at.
    Raises ModelError if a source is empty or the network gives NaN.
    """
    batch = _Batch(model, source_bs, 1, decoding)
    found: list[list[Hypothesis]] = [[] for _ in batch.numbers]
    while batch.numbers:
        scores_b, pieces_b = batch.next_log_probabilities().squeeze(1).max(dim=-1)
        scores_b = batch.scores_bk.squeeze(1) + scores_b
        ended = (pieces_b == model.vocabulary.eos_id).nonzero().flatten().tolist()
        parents_b = torch.zeros_like(pieces_b)
        batch.finish(ended, parents_b[ended], scores_b[ended], found)
        batch.advance(parents_b.unsqueeze(1), pieces_b.unsqueeze(1), scores_b.unsqueeze(1))
        batch.drop(ended)
    return [hypotheses[0] for hypotheses in _checked(found)]


@torch.no_grad()
def beam_search(
    model: Transformer, source_bs: Tensor, decoding: DecodingConfig
) -> list[list[Hypothesis]]:
    """Returns, for each source, up to `beam_size` translations, best first.

    At each step the 2k best candidates of a sentence are looked at, of which at most k can end:
    those among the first k that end are finished, and the best k that do not end live on
    (Ott et al. 2019, fairseq). A sentence leaves when k of its hypotheses are finished.
    The model must be in evaluation mode.
    Raises ModelError if a source is empty or the network gives NaN.
    """
    k = decoding.beam_size
    batch = _Batch(model, source_bs, k, decoding)
    found: list[list[Hypothesis]] = [[] for _ in batch.numbers]
    order_c = torch.arange(2 * k, device=source_bs.device)
    while batch.numbers:
        log_probabilities_bkv = batch.next_log_probabilities()
        totals_bkv = batch.scores_bk.unsqueeze(-1) + log_probabilities_bkv
        scores_bc, flat_bc = totals_bkv.flatten(1).topk(2 * k)
        parents_bc = flat_bc // totals_bkv.shape[-1]
        pieces_bc = flat_bc % totals_bkv.shape[-1]

        ends_bc = pieces_bc == model.vocabulary.eos_id
        ended = (ends_bc & scores_bc.isfinite())[:, :k].nonzero()
        rows, columns = ended.unbind(1)
        batch.finish(rows.tolist(), parents_bc[rows, columns], scores_bc[rows, columns], found)

        live_bk = (order_c + 2 * k * ends_bc).argsort(dim=1)[:, :k]
        batch.advance(
            parents_bc.gather(1, live_bk),
            pieces_bc.gather(1, live_bk),
            scores_bc.gather(1, live_bk),
        )
        full = [row for row, number in enumerate(batch.numbers) if len(found[number]) >= k]
        batch.drop(full + batch.at_limit)
    for hypotheses in _checked(found):
        hypotheses.sort(key=lambda hypothesis: hypothesis.score, reverse=True)
    return [hypotheses[:k] for hypotheses in found]


class _Batch:
    """The unfinished sentences, the live hypotheses of each, and what the decoder remembers.

    All tensors have the sentence as their first axis; `numbers` tells which one a row is.
    """

    def __init__(
        self, model: Transformer, source_bs: Tensor, k: int, decoding: DecodingConfig
    ) -> None:
        assert not model.training, "call model.eval() before decoding: dropout is on"
        self.model = model
        self.alpha = decoding.length_penalty
        # The rows whose coming piece is their last.
        self.at_limit: list[int] = []
        self.limits = _limits(source_bs, model.vocabulary.pad_id, decoding)
        b = len(source_bs)
        self.numbers = list(range(b))
        self.memories = model.decoder.project_memory(model.encode(source_bs))
        self.memory_mask = model.source_mask(source_bs)
        self.caches = [SelfAttentionCache() for _ in self.memories]
        self.pieces_bkp = source_bs.new_full((b, k, 1), model.vocabulary.bos_id)
        # The hypotheses are alike at first: one of them is live, so that none is found twice.
        self.scores_bk = torch.full((b, k), float("-inf"), device=source_bs.device)
        self.scores_bk[:, 0] = 0.0
        self.slots_k = torch.arange(k, device=source_bs.device)
        # In which slot of the caches hypothesis k's p-th piece was written.
        self.ancestry_bkp = self.slots_k.new_empty(b, k, 0)

    @property
    def length(self) -> int:
        """How many pieces a hypothesis has with the one that comes next, BOS not counted."""
        return self.pieces_bkp.shape[2]

    def next_log_probabilities(self) -> Tensor:
        """Runs one decoder step; returns log p of each next piece, (b, k, v) in fp32."""
        b, k, _ = self.pieces_bkp.shape
        written_bk1 = self.slots_k.expand(b, k).unsqueeze(2)
        self.ancestry_bkp = torch.cat([self.ancestry_bkp, written_bk1], dim=2)
        ancestry_mask = None
        if k > 1:
            own_bkpk = self.ancestry_bkp.unsqueeze(3) == self.slots_k
            ancestry_mask = own_bkpk.flatten(2).unsqueeze(1)
        hidden_bkd = self.model.decode_step(
            self.pieces_bkp[:, :, -1], self.memories, self.memory_mask, ancestry_mask, self.caches
        )
        log_probabilities_bkv = self.model.logits(hidden_bkd).float().log_softmax(dim=-1)
        vocabulary = self.model.vocabulary
        log_probabilities_bkv[:, :, [vocabulary.pad_id, vocabulary.bos_id]] = float("-inf")
        self.at_limit = [row for row, limit in enumerate(self.limits) if limit == self.length]
        if self.at_limit:
            end_bk = log_probabilities_bkv[self.at_limit, :, vocabulary.eos_id]
            log_probabilities_bkv[self.at_limit] = float("-inf")
            log_probabilities_bkv[self.at_limit, :, vocabulary.eos_id] = end_bk
        return log_probabilities_bkv

    def finish(
        self, rows: list[int], parents: Tensor, scores: Tensor, found: list[list[Hypothesis]]
    ) -> None:
        """Adds to `found` the hypotheses `parents` of `rows`, which end with the coming piece."""
        if not rows:
            return
        penalty = length_penalty(self.length, self.alpha)
        ids = self.pieces_bkp[rows, parents, 1:].tolist()
        for row, pieces, score in zip(rows, ids, scores.tolist(), strict=True):
            found[self.numbers[row]].append(Hypothesis(tuple(pieces), score / penalty))

    def advance(self, parents_bk: Tensor, pieces_bk: Tensor, scores_bk: Tensor) -> None:
        """Makes the live hypotheses: each is a parent and one piece more."""
        parents_bkp = parents_bk.unsqueeze(2).expand_as(self.pieces_bkp)
        self.pieces_bkp = torch.cat(
            [self.pieces_bkp.gather(1, parents_bkp), pieces_bk.unsqueeze(2)], dim=2
        )
        self.ancestry_bkp = self.ancestry_bkp.gather(1, parents_bkp)
        self.scores_bk = scores_bk

    def drop(self, rows: list[int]) -> None:
        """Lets the sentences in these rows leave; the last rows move into the gaps."""
        if not rows:
            return
        leaving = set(rows)
        kept = len(self.numbers) - len(leaving)
        gaps = [row for row in range(kept) if row in leaving]
        movers = [row for row in range(kept, len(self.numbers)) if row not in leaving]
        for gap, mover in zip(gaps, movers, strict=True):
            self.numbers[gap] = self.numbers[mover]
            self.limits[gap] = self.limits[mover]
        del self.numbers[kept:], self.limits[kept:]

        device = self.pieces_bkp.device
        gaps_at, movers_at = torch.tensor([gaps, movers], device=device, dtype=torch.long)
        self.pieces_bkp = fill_gaps(self.pieces_bkp, gaps_at, movers_at, kept)
        self.scores_bk = fill_gaps(self.scores_bk, gaps_at, movers_at, kept)
        self.ancestry_bkp = fill_gaps(self.ancestry_bkp, gaps_at, movers_at, kept)
        self.memory_mask = fill_gaps(self.memory_mask, gaps_at, movers_at, kept)
        self.memories = [
            KeyValue(*(fill_gaps(part, gaps_at, movers_at, kept) for part in memory))
            for memory in self.memories
        ]
        for cache in self.caches:
            cache.fill_gaps(gaps_at, movers_at, kept)


def _limits(source_bs: Tensor, pad_id: int, decoding: DecodingConfig) -> list[int]:
    """How many pieces, EOS included, each sentence's translation may have."""
    lengths = (source_bs != pad_id).sum(dim=1).tolist()
    if 0 in lengths:
        raise ModelError(
            f"Source {lengths.index(0)} of {len(lengths)} holds 0 pieces, but at least 1, EOS, is "
            "needed. End every source with EOS, the empty one too."
        )
    factor, extra = decoding.max_length_factor, decoding.max_extra_length
    return [int(factor * length) + extra for length in lengths]


def _checked(found: list[list[Hypothesis]]) -> list[list[Hypothesis]]:
    """Every search ends with EOS, and so with a finite score, unless the network gives NaN."""
    for number, hypotheses in enumerate(found):
        if not all(math.isfinite(hypothesis.score) for hypothesis in hypotheses) or not hypotheses:
            raise ModelError(
                f"Source {number} of {len(found)} has no translation: the network's probabilities "
                "are NaN or infinite, but they must be finite. Its weights have diverged; use an "
                "earlier checkpoint, and train on with a lower learning rate."
            )
    return found
