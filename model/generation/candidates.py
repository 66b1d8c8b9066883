"""The best next tokens of a beam, found without sorting whole vocabularies.

    logits ─▶ log-normaliser of each hypothesis, and largest log-probability of each block
           ─▶ + scores ─▶ the c best blocks of each sentence ─▶ their c best continuations

The row of logits of each hypothesis is cut into blocks. A sentence's c best continuations are in
the c blocks whose largest elements are the best continuations. Searching only these blocks
is therefore exact. On a CPU, `torch.topk` over whole rows would cost more than a small model's
decoder step. Log-probabilities are written and then read again, so a CPU computes them for a few
rows at a time, which stay in its cache.

Shape suffixes: b sentences, k hypotheses of each, r = b · k rows, v vocabulary, n blocks of a
vocabulary, c candidates or their blocks, p positions in a block.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

# Block sizes in tokens. On a CPU, torch finds the largest element of such a block up to four times
# as fast as the largest element of a block of another size, such as 80 or 125.
BLOCK_SIZES = (128, 96, 64, 160, 100, 200)
CACHE_BYTES = 2**20  # assumed size of a core's second-level cache


class Candidates(NamedTuple):
    """The best continuations of each sentence's hypotheses, best first, all (b, c)."""

    scores_bc: Tensor  # hypothesis score including the new token, in nats
    parents_bc: Tensor  # hypothesis that each candidate continues
    tokens_bc: Tensor  # new token of each candidate


def best_candidates(
    logits_bkv: Tensor, scores_bk: Tensor, count: int, never: Tensor, given: Mapping[int, int]
) -> Candidates:
    """Return the `count` best of all k · v continuations of each sentence.

    A continuation's score is its hypothesis' score plus the log-probability of its token. Excluding
    tokens does not change the probabilities of other tokens. Excluded continuations, and
    continuations with a score of -inf, are returned only if there are fewer than `count` other
    continuations.

    Args:
        logits_bkv: logits of the next tokens; modified in place.
        scores_bk: scores of the hypotheses, in nats.
        count: at most k · v.
        never: tokens excluded for every hypothesis.
        given: required next token by row, for rows that have one; all other tokens are excluded in
            these rows.
    """
    b, k, v = logits_bkv.shape
    size = block_size(v)
    if v % size:
        logits_bkv = F.pad(logits_bkv, (0, -v % size), value=float("-inf"))
    logits_rv = logits_bkv.flatten(0, 1)
    normalizers_r, largest_rn = _normalizers_and_largest(logits_rv, size, never)
    normalizers_bk, largest_bkn = normalizers_r.view(b, k), largest_rn.view(b, k, -1)
    logits_rv.index_fill_(1, never, float("-inf"))
    if given:
        rows, tokens = list(given), torch.tensor(list(given.values()), device=logits_rv.device)
        kept = logits_bkv[rows, :, tokens]
        logits_bkv[rows] = float("-inf")
        logits_bkv[rows, :, tokens] = kept
        largest_bkn[rows] = float("-inf")
        largest_bkn[rows, :, tokens // size] = kept - normalizers_bk[rows]

    n = largest_bkn.shape[2]
    best_b_ = (largest_bkn + scores_bk.unsqueeze(2)).flatten(1)
    chosen_bc = best_b_.topk(min(count, k * n), sorted=False).indices
    firsts_b1 = torch.arange(0, b * k * n, k * n, device=chosen_bc.device).unsqueeze(1)
    found__p = logits_rv.view(-1, size).index_select(0, (chosen_bc + firsts_b1).flatten())
    without_logit_bc = (scores_bk - normalizers_bk).gather(1, chosen_bc // n)
    scores_bcp = found__p.view(b, -1, size) + without_logit_bc.unsqueeze(2)
    scores_bc, best_bc = scores_bcp.flatten(1).topk(count)
    from_bc = chosen_bc.gather(1, best_bc // size)
    tokens_bc = from_bc % n * size + best_bc % size
    return Candidates(scores_bc, from_bc // n, tokens_bc.clamp_(max=v - 1))


def _normalizers_and_largest(logits_rv: Tensor, size: int, never: Tensor) -> tuple[Tensor, Tensor]:
    """Return log Σ exp(logits) of each row, and the largest log-probability of each block (r, n).

    Both tensors are fp32.
    """
    r, v = logits_rv.shape
    few = r if logits_rv.device.type != "cpu" else max(1, CACHE_BYTES // (4 * v))
    firsts, largest = [], []
    for part_rv in logits_rv.split(few):
        log_probabilities_rv = part_rv.log_softmax(dim=1, dtype=torch.float32)
        firsts.append(log_probabilities_rv[:, 0].clone())
        log_probabilities_rv.index_fill_(1, never, float("-inf"))
        largest.append(log_probabilities_rv.unflatten(1, (-1, size)).amax(2))
    return logits_rv[:, 0] - torch.cat(firsts), torch.cat(largest)


def block_size(vocabulary_size: int) -> int:
    """Return the first block size that divides the vocabulary size, or the first of `BLOCK_SIZES`.

    In the second case, `best_candidates` pads the vocabulary.
    """
    return next((size for size in BLOCK_SIZES if vocabulary_size % size == 0), BLOCK_SIZES[0])
