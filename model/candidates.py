"""The best next pieces of a beam, found without sorting whole vocabularies.

    log-probabilities ─▶ largest of each block ─▶ + scores ─▶ the c best blocks of each sentence
                                                                 ─▶ their c best continuations

A row of log-probabilities, those of one hypothesis' next pieces, is cut into blocks. A sentence's
c best continuations lie in the c blocks whose largest elements continue best, so only these are
searched, and the result is exact. On a CPU, `torch.topk` over whole rows would cost more than a
small model's decoder step.

Shape suffixes: b sentences, k hypotheses of each, v pieces, n blocks, c candidates or the blocks
that they are in, p places in a block.
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
    largest_bkn = _largest_of_blocks(log_probabilities_bkv)
    n = largest_bkn.shape[2]
    blocks_bkn = (largest_bkn + scores_bk.unsqueeze(2)).view(b, k * n)
    chosen_bc = blocks_bkn.topk(min(count, k * n), sorted=False).indices
    parents_bc = chosen_bc // n
    blocks_bc = chosen_bc % n

    places = torch.arange(BLOCK_PIECES, device=chosen_bc.device)
    starts_bc = parents_bc * v + blocks_bc * BLOCK_PIECES
    searched_bcp = (starts_bc.unsqueeze(2) + places).clamp_(max=k * v - 1)
    found_b_ = log_probabilities_bkv.view(b, k * v).gather(1, searched_bcp.flatten(1))
    found_bcp = found_b_.view_as(searched_bcp).add_(scores_bk.gather(1, parents_bc).unsqueeze(2))
    if rest := v % BLOCK_PIECES:
        # A row's last block is shorter than the others: there the next row has been searched.
        found_bcp.masked_fill_((blocks_bc == n - 1).unsqueeze(2) & (places >= rest), float("-inf"))
    scores_bc, best_bc = found_bcp.flatten(1).topk(count)
    continuations_bc = searched_bcp.flatten(1).gather(1, best_bc)
    return Candidates(scores_bc, continuations_bc // v, continuations_bc % v)


def _largest_of_blocks(rows_bkv: Tensor) -> Tensor:
    """Each block's largest element, (b, k, n)."""
    v = rows_bkv.shape[2]
    whole = v // BLOCK_PIECES * BLOCK_PIECES
    largest_bkn = rows_bkv[..., :whole].unflatten(2, (-1, BLOCK_PIECES)).amax(3)
    if whole == v:
        return largest_bkn
    return torch.cat([largest_bkn, rows_bkv[..., whole:].amax(2, keepdim=True)], dim=2)
