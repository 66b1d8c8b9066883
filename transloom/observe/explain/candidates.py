"""Select the most probable pieces at a position, to be shown as bars."""

from collections.abc import Sequence

from torch import Tensor

from transloom.observe.explain.parts import Bar

CANDIDATES = 8


def candidate_bars(
    logits_v: Tensor, probabilities_v: Tensor, vocabulary: Sequence[str], chosen: int
) -> list[Bar]:
    """Return the most probable pieces, and the chosen piece if it is not among them."""
    logits, probabilities = logits_v.cpu(), probabilities_v.cpu()
    ids = probabilities.topk(min(CANDIDATES, len(probabilities))).indices.tolist()
    return [
        Bar(
            piece=vocabulary[piece],
            logit=logits[piece].item(),
            probability=probabilities[piece].item(),
            chosen=piece == chosen,
        )
        for piece in (ids if chosen in ids else [*ids, chosen])
    ]


def others_share(bars: Sequence[Bar], vocabulary: Sequence[str]) -> tuple[int, float]:
    """Return the number of pieces without a bar, and the sum of their probabilities."""
    return len(vocabulary) - len(bars), max(0.0, 1 - sum(bar.probability for bar in bars))
