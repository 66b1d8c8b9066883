"""The best next pieces of a beam, found without sorting whole vocabularies.

    log-probabilities ─▶ largest of each block ─▶ the c best blocks ─▶ c best of each hypothesis
                                                    ─▶ + scores ─▶ c best of each sentence

The c largest of a row lie in the c blocks whose largest elements are largest, so only these are
searched, and the result is exact. On a CPU, `torch.topk` over the whole row would cost more than
a small model's decoder step.

Shape suffixes: b sentences, k hypotheses of each, v pieces, c candidates.
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
    b, _, v = log_probabilities_bkv.shape
    each = min(count, v)
    best_bkc, pieces_bkc = top(log_probabilities_bkv, each)
    scores_bc, flat_bc = (best_bkc + scores_bk.unsqueeze(2)).view(b, -1).topk(count)
    return Candidates(scores_bc, flat_bc // each, pieces_bkc.view(b, -1).gather(1, flat_bc))


def top(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """`values.topk(count)` over the last axis: values and indices, largest first."""
    width = values.shape[-1]
    blocks = -(-width // BLOCK_PIECES)
    if count >= blocks:
        largest, indices = values.topk(count)
        return largest, indices
    whole = width // BLOCK_PIECES * BLOCK_PIECES
    largest_of_blocks = values[..., :whole].unflatten(-1, (-1, BLOCK_PIECES)).amax(-1)
    if whole < width:
        rest = values[..., whole:].amax(-1, keepdim=True)
        largest_of_blocks = torch.cat([largest_of_blocks, rest], dim=-1)
    chosen = largest_of_blocks.topk(count, sorted=False).indices.unsqueeze(-1)
    places = torch.arange(BLOCK_PIECES, device=values.device)
    indices = (chosen * BLOCK_PIECES + places).flatten(-2)
    # The last block may be shorter than the others.
    searched = values.gather(-1, indices.clamp(max=width - 1))
    searched.masked_fill_(indices >= width, float("-inf"))
    largest, best = searched.topk(count)
    # Where a row is -inf but for fewer than `count`, what is missing there is as large.
    return largest, indices.gather(-1, best).clamp(max=width - 1)
