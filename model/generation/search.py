"""Greedy and beam search for a translation, token by token until EOS.

    source ids ─▶ encode once ─▶ [ decode one step ─▶ log-probabilities ─▶ choose ] … ─▶ hypotheses

A hypothesis' score is its log-probability divided by the length penalty of Wu et al. 2016 (eq. 14),
lp(Y) = ((5 + |Y|) / 6)^α, where |Y| counts EOS. Padding and BOS are never chosen; this does not
renormalise the probabilities of the other tokens.

A translation has at most `max_length_factor` · source length + `max_extra_length` tokens; both
lengths include EOS. The last possible token is forced to be EOS. Each sentence has its own limit,
so its translation does not depend on the batch. Finished sentences leave the batch.

A translation can be forced to begin with given tokens, its prefix (interactive translation; Wuebker
et al. 2016). Tokens of the prefix count towards score and length like chosen tokens.

Shape suffixes: b unfinished sentences, k hypotheses of each, c candidates, p tokens of a prefix, v
target vocabulary, s source length.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from model.config.transformer import DecodingConfig
from model.errors import ModelError
from model.generation.search_state import Hypothesis, SearchState, length_penalty
from model.networks.transformer import Transformer

__all__ = [
    "Hypothesis",
    "beam_search",
    "best_by_penalty",
    "ensemble_search",
    "greedy_search",
    "length_penalty",
]


@torch.no_grad()
def greedy_search(
    model: Transformer,
    source_bs: Tensor,
    decoding: DecodingConfig,
    prefix_bp: Tensor | None = None,
) -> list[Hypothesis]:
    """Return, for each source, the translation made of the most probable token at every step.

    Args:
        model: must be in evaluation mode.
        decoding: settings; `beam_size` is ignored.
        prefix_bp: first tokens of each translation, padded at the end, or None for no prefix.

    Raises:
        ModelError: a source is empty, a prefix cannot be continued, or the network returns NaN.
    """
    state = SearchState([model], [source_bs], prefix_bp, 1, decoding)
    found: list[list[Hypothesis]] = [[] for _ in state.indices]
    while state.indices:
        scores_bk, parents_bk, tokens_bk = state.best_continuations(1)
        ends_bk = tokens_bk == model.vocabulary.eos_id
        ends_bk[state.at_limit] = True  # already true unless the network returns NaN
        ended = ends_bk.nonzero()[:, 0].tolist()
        state.finish(ended, parents_bk[ended, 0], scores_bk[ended, 0], found)
        state.advance(parents_bk, tokens_bk, scores_bk)
        state.drop(ended)
    return [hypotheses[0] for hypotheses in _checked(found)]


@torch.no_grad()
def beam_search(
    model: Transformer,
    source_bs: Tensor,
    decoding: DecodingConfig,
    prefix_bp: Tensor | None = None,
) -> list[list[Hypothesis]]:
    """Return, for each source, up to `beam_size` translations, best first.

    Arguments and errors are those of `greedy_search`.
    """
    return ensemble_search([model], [source_bs], decoding, prefix_bp)


@torch.no_grad()
def ensemble_search(
    models: Sequence[Transformer],
    sources: Sequence[Tensor],
    decoding: DecodingConfig,
    prefix_bp: Tensor | None = None,
) -> list[list[Hypothesis]]:
    """Return, for each source, up to `beam_size` translations of several networks, best first.

    A token's probability is the mean of its probabilities in the networks (Sutskever et al. 2014,
    §3.4). With one network this is `beam_search`.

    Each step considers the 2k best candidates of a sentence, of which at most k can end. Candidates
    that end are finished if they are among the first k, and otherwise dropped. The best k
    candidates that do not end stay live (Ott et al. 2019, fairseq). A sentence leaves the batch
    when k of its hypotheses are finished.

    Args:
        models: must be in evaluation mode, and share one target vocabulary.
        sources: for each network, the same sentences in its tokenization, (b, s), padded at the
            end.
        prefix_bp: as in `greedy_search`, which also lists the errors.
    """
    k = decoding.beam_size
    state = SearchState(models, sources, prefix_bp, k, decoding)
    found: list[list[Hypothesis]] = [[] for _ in state.indices]
    order_c = torch.arange(2 * k, device=sources[0].device)
    while state.indices:
        scores_bc, parents_bc, tokens_bc = state.best_continuations(2 * k)
        ends_bc = tokens_bc == state.vocabulary.eos_id
        ended = (ends_bc & scores_bc.isfinite())[:, :k].nonzero()
        rows, columns = ended.unbind(1)
        state.finish(rows.tolist(), parents_bc[rows, columns], scores_bc[rows, columns], found)

        leaving = state.at_limit
        live_bk = (order_c[: ends_bc.shape[1]] + 2 * k * ends_bc).argsort(dim=1)[:, :k]
        state.advance(
            parents_bc.gather(1, live_bk),
            tokens_bc.gather(1, live_bk),
            # If there are fewer than 2k candidates, an ended candidate may be among the first k.
            scores_bc.masked_fill(ends_bc, float("-inf")).gather(1, live_bk),
        )
        full = [row for row, index in enumerate(state.indices) if len(found[index]) >= k]
        state.drop(full + leaving)
    for hypotheses in _checked(found):
        hypotheses.sort(key=lambda hypothesis: hypothesis.score, reverse=True)
    return [hypotheses[:k] for hypotheses in found]


def best_by_penalty(found: Sequence[Hypothesis], alpha: float) -> Hypothesis:
    """Return the translation of a sentence that a search with this length penalty would return.

    During beam search, the compared hypotheses have equal lengths, so α affects only the order of
    finished hypotheses. At the end, the search keeps the k finished hypotheses with the highest
    log-probabilities. No dropped hypothesis can be best for any α ≥ 0: fewer than k were finished
    before the last step, so at least one of the kept hypotheses is from the last step. This one is
    at least as long as any dropped hypothesis, and has a higher log-probability.

    Args:
        found: hypotheses that `beam_search` returned for the sentence with a length penalty of 0,
            whose scores are log-probabilities.
    """

    def score(hypothesis: Hypothesis) -> float:
        return hypothesis.score / length_penalty(len(hypothesis.ids) + 1, alpha)

    # Among equal scores, the hypothesis that was finished first wins.
    best = max(sorted(found, key=lambda hypothesis: len(hypothesis.ids)), key=score)
    return Hypothesis(best.ids, score(best))


def _checked(found: list[list[Hypothesis]]) -> list[list[Hypothesis]]:
    """Return the hypotheses, after checking that each sentence has one and all scores are finite.

    Every search ends with EOS, and so with a finite score, unless the network returns NaN.

    Raises:
        ModelError: a sentence has no hypothesis, or a score is not finite.
    """
    for number, hypotheses in enumerate(found):
        if not all(math.isfinite(hypothesis.score) for hypothesis in hypotheses) or not hypotheses:
            raise ModelError(
                f"Source {number} of {len(found)} has no translation: the network's probabilities "
                "are NaN or infinite, but they must be finite. Its weights have diverged; use an "
                "earlier checkpoint, and continue training with a lower learning rate."
            )
    return found
