"""The best next pieces of a beam, found without sorting whole vocabularies.

    log-probabilities ─▶ largest of each block ─▶ + scores ─▶ the c best blocks of each sentence
                                                                 ─▶ their c best continuations

A row of log-probabilities, those of one hypothesis' next pieces, is cut into blocks. A sentence's
c best continuations lie in the c blocks whose largest elements continue best, so only these are
searched, and the result is exact. On a CPU, `torch.topk` over whole rows would cost more than a
small model's decoder step.

Shape suffixes: b sentences, k hypotheses of each, v pieces, n blocks, c candidates.
"""

from typing import NamedTuple

import torch
from torch import Tensor

BLOCK_PIECES = 64


class Candidates(NamedTuple):
    """The best continuations of each sentence's hypotheses, best first, all (b, c)."""

    scores_bc: Tensor  # of the hypothesis with the piece, in nats
    parents_bc: Tensor  # which hypothesis is continued
    pieces_bc: Tensor  # and by which piece


def best_candidates(log_probabilities_bkv: Tensor, scores_bk: Tensor, count: int) -> Candidates:
    """Returns the `count` best of all k · v continuations, which must be as many or more.

    A continuation's score is its hypothesis' score plus the log-probability of its piece. Ones of
    -inf are returned only where there are not enough others.
    """
    b, k, v = log_probabilities_bkv.shape
    if count >= k * -(-v // BLOCK_PIECES):
        continuations_bkv = log_probabilities_bkv + scores_bk.unsqueeze(2)
        scores_bc, flat_bc = continuations_bkv.view(b, -1).topk(count)
        return Candidates(scores_bc, flat_bc // v, flat_bc % v)

    largest_bkn = _largest_of_blocks(log_probabilities_bkv)
    n = largest_bkn.shape[2]
    blocks_bc = (largest_bkn + scores_bk.unsqueeze(2)).view(b, -1).topk(count, sorted=False).indices
    parents_bc = blocks_bc // n
    places = torch.arange(BLOCK_PIECES, device=blocks_bc.device)
    pieces_b_ = ((blocks_bc % n).unsqueeze(2) * BLOCK_PIECES + places).flatten(1)
    # A row's last block may be shorter than the others.
    missing_b_ = pieces_b_ >= v
    pieces_b_ = pieces_b_.clamp(max=v - 1)
    parents_b_ = parents_bc.repeat_interleave(BLOCK_PIECES, dim=1)
    searched_b_ = log_probabilities_bkv.view(b, -1).gather(1, parents_b_ * v + pieces_b_)
    searched_b_ += scores_bk.gather(1, parents_b_)
    searched_b_.masked_fill_(missing_b_, float("-inf"))
    scores_bc, best_bc = searched_b_.topk(count)
    return Candidates(scores_bc, parents_b_.gather(1, best_bc), pieces_b_.gather(1, best_bc))


def _largest_of_blocks(rows_bkv: Tensor) -> Tensor:
    """Each block's largest element, (b, k, n)."""
    v = rows_bkv.shape[2]
    whole = v // BLOCK_PIECES * BLOCK_PIECES
    largest_bkn = rows_bkv[..., :whole].unflatten(2, (-1, BLOCK_PIECES)).amax(3)
    if whole == v:
        return largest_bkn
    return torch.cat([largest_bkn, rows_bkv[..., whole:].amax(2, keepdim=True)], dim=2)
