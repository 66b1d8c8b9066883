"""The best next pieces of a beam, found without sorting whole vocabularies.

    log-probabilities ─▶ largest of each block ─▶ + scores ─▶ the c best blocks of each sentence
    these blocks      ─▶ their c best continuations

The first half goes through all log-probabilities, as many at a time as is good; the second half
takes the whole batch.

A row of log-probabilities, those of one hypothesis' next pieces, is cut into blocks. A sentence's
c best continuations lie in the c blocks whose largest elements continue best, so only these are
searched, and the result is exact. On a CPU, `torch.topk` over whole rows would cost more than a
small model's decoder step.

Shape suffixes: b sentences, k hypotheses of each, v pieces, n blocks of a vocabulary, c candidates
or the blocks that they are in, p places in a block.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

MULTIPLE = 16  # of a block's pieces, which a vector of floats takes


class Blocks(NamedTuple):
    """The best blocks of each sentence, in no order."""

    chosen_bc: Tensor  # which of its k · n blocks they are
    log_probabilities_bcp: Tensor  # of their pieces


class Candidates(NamedTuple):
    """The best continuations of each sentence's hypotheses, best first, all (b, c)."""

    scores_bc: Tensor  # of the hypothesis with the piece, in nats
    parents_bc: Tensor  # which hypothesis is continued
    pieces_bc: Tensor  # and by which piece


def best_blocks(log_probabilities_bkv: Tensor, scores_bk: Tensor, count: int) -> Blocks:
    """Returns the blocks with the `count` best of all k · v continuations, or all if fewer.

    A continuation's score is its hypothesis' score plus the log-probability of its piece.
    """
    b, _, v = log_probabilities_bkv.shape
    size = block_size(v)
    if v % size:
        log_probabilities_bkv = F.pad(log_probabilities_bkv, (0, -v % size), value=float("-inf"))
    blocks_bknp = log_probabilities_bkv.unflatten(2, (-1, size))
    best_b_ = (blocks_bknp.amax(3) + scores_bk.unsqueeze(2)).flatten(1)
    each = best_b_.shape[1]  # sentence's k · n blocks
    chosen_bc = best_b_.topk(min(count, each), sorted=False).indices
    firsts_b1 = torch.arange(0, b * each, each, device=chosen_bc.device).unsqueeze(1)
    found__p = blocks_bknp.flatten(0, 2).index_select(0, (chosen_bc + firsts_b1).flatten())
    return Blocks(chosen_bc, found__p.view(b, -1, size))


def best_candidates(blocks: Blocks, scores_bk: Tensor, count: int, pieces: int) -> Candidates:
    """Returns the `count` best of all k · v continuations, which must be as many or more.

    `pieces` is v. Continuations of -inf are returned only where there are not enough others.
    """
    chosen_bc, log_probabilities_bcp = blocks
    size = log_probabilities_bcp.shape[2]
    n = -(-pieces // size)
    scores_bcp = log_probabilities_bcp + scores_bk.gather(1, chosen_bc // n).unsqueeze(2)
    scores_bc, best_bc = scores_bcp.flatten(1).topk(count)
    from_bc = chosen_bc.gather(1, best_bc // size)
    pieces_bc = from_bc % n * size + best_bc % size
    return Candidates(scores_bc, from_bc // n, pieces_bc.clamp_(max=pieces - 1))


def block_size(pieces: int) -> int:
    """About 64, so that blocks make a whole vocabulary if they can."""
    sizes = range(2 * MULTIPLE, 8 * MULTIPLE + 1, MULTIPLE)
    return min((size for size in sizes if pieces % size == 0), key=_far_from_64, default=64)


def _far_from_64(size: int) -> int:
    return abs(size - 64)
