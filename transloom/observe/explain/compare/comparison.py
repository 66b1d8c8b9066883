"""Compute comparable numbers of two models on one sentence.

    each model ─▶ its own greedy translation ─▶ the step at which the translations diverge
    each model, fed the pieces of the first one's translation ─▶ predictions, lens, attention

Both models read the same pieces, so that each row of one model can be compared with the same row of
the other. This requires a common target vocabulary. Otherwise, each model follows its own
translation. Two greedy translations consist of the same pieces until they diverge, so the step in
which they diverge can be read from the same pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foundation.wording import counted
from model.generation.search import greedy_search
from model.generation.search_state import length_penalty
from model.inspection.trace import Trace, trace
from transloom.inference.translator import Translator
from transloom.observe.explain import limits

CANDIDATES = 5
MOST_PIECES = 64  # maximum number of pieces in attention maps that are computed in advance
DIGITS = 5
ENCODER, DECODER = "encoder layers", "decoder layers"


@dataclass(frozen=True)
class NextPiece:
    """Candidate for the next piece."""

    piece: str
    probability: float


@dataclass(frozen=True)
class Step:
    """Prediction of a model after some pieces.

    Attributes:
        best: the most probable pieces, in descending order of probability.
        asked: the probability of the piece that is evaluated for both models.
    """

    best: list[NextPiece]
    asked: float


@dataclass(frozen=True)
class Lens:
    """Predictions from one layer's rows if the output matrix is applied to them (logit lens)."""

    name: str
    steps: list[Step]


@dataclass(frozen=True)
class Attention:
    """Weights of one attention.

    Attributes:
        key: name of the attention in a trace, as defined in `live/page/places.js`.
        shape: numbers of heads, queries and keys.
        data: the weights of each head, row by row.
    """

    key: str
    shape: list[int]
    data: list[float]


@dataclass(frozen=True)
class Side:
    """One of the two compared models: input, output and computed numbers.

    Attributes:
        source: the pieces that its encoder reads.
        target: the pieces that its decoder reads, beginning with BOS.
        asked: the piece that is evaluated after each piece of `target`.
        written: the pieces of its greedy translation; the last piece is EOS.
        log_probability: the log-probability of `written`, in nats.
    """

    name: str
    source: list[str]
    target: list[str]
    asked: list[str]
    written: list[str]
    translation: str
    log_probability: float
    steps: list[Step]
    lens: list[Lens]
    attentions: list[Attention]


@dataclass(frozen=True)
class Parting:
    """First step, counted from 0, in which two greedy translations have different pieces.

    Attributes:
        probabilities: one row per model, with the probability of the first model's piece and of the
            second model's piece.
    """

    step: int
    probabilities: list[list[float]]


@dataclass(frozen=True)
class ModelComparison:
    """Comparison of two models on one sentence.

    Attributes:
        same_source: True if both models read the same source pieces.
        same_target: True if both models have the same target vocabulary.
        parting: the step in which the greedy translations diverge; None if they are equal, or if
            the vocabularies differ.
        cut: description of the rows, heads and layers that are left out; "" if none is.
    """

    sentence: str
    tag: str | None
    same_source: bool
    same_target: bool
    parting: Parting | None
    cut: str
    sides: tuple[Side, Side]


def compare(
    translators: Sequence[Translator], names: Sequence[str], sentence: str, tag: str | None
) -> ModelComparison:
    """Compare two models on a sentence.

    Raises:
        TokenizerError: a model does not know the tag.
        ModelError: a network returns NaN.
    """
    first, second = (_Reading(translator, sentence, tag) for translator in translators)
    same_target = first.vocabulary == second.vocabulary
    first.follow(first.written)
    second.follow(first.written if same_target else second.written)
    sides = first.side(names[0]), second.side(names[1])
    return ModelComparison(
        sentence=sentence,
        tag=tag,
        same_source=sides[0].source == sides[1].source,
        same_target=same_target,
        parting=_parting(first, second) if same_target else None,
        cut=_cut((first, second)),
        sides=sides,
    )


def incompatibilities(comparison: ModelComparison, translators: Sequence[Translator]) -> list[str]:
    """Describe differences that prevent some comparisons, and those that remain possible."""
    first, second = (translator.model.config for translator in translators)
    found = []
    if not comparison.same_target:
        sizes = [t.model.vocabulary.target_size for t in translators]
        found.append(
            f"the target vocabularies differ ({sizes[0]:,} and {sizes[1]:,} pieces), so each model "
            "follows its own translation. The translations and each model's own steps are shown"
        )
    if not comparison.same_source:
        found.append(
            "the tokenizers split this sentence into different pieces, so maps with these pieces "
            "are shown side by side without their difference. Predictions can still be compared"
        )
    shapes = [(c.encoder_layers, c.decoder_layers, c.heads) for c in (first, second)]
    if shapes[0] != shapes[1]:
        layers = " and ".join(
            f"{counted(encoder, 'encoder layer')}, {counted(decoder, 'decoder layer')}, "
            f"{counted(heads, 'head')}"
            for encoder, decoder, heads in shapes
        )
        found.append(
            f"the shapes differ ({layers}), so maps that only one model has are shown without a "
            "counterpart"
        )
    return found


class _Reading:
    """Model with its source pieces and its greedy translation of a sentence."""

    def __init__(self, translator: Translator, sentence: str, tag: str | None) -> None:
        model = translator.model
        self._translator = translator
        self.config = model.config
        self._source = torch.tensor([translator.source_ids(sentence, tag)])
        self._source_texts = translator.source_texts(sentence, tag)
        (found,) = greedy_search(model, self._source, translator.decoding)
        self.written = (*found.ids, model.vocabulary.eos_id)
        penalty = length_penalty(len(self.written), translator.decoding.length_penalty)
        self._log_probability = found.score * penalty
        self.vocabulary = translator.target_pieces(range(model.vocabulary.target_size))
        self.longest = max(len(self._source_texts), len(self.written))

    def follow(self, asked: Sequence[int]) -> None:
        """Feed these pieces to the decoder, and store the probabilities after each of them."""
        model = self._translator.model
        self._asked = asked
        self._read = [model.vocabulary.bos_id, *asked[:-1]]
        self._traced = trace(model, self._source, torch.tensor([self._read]))
        self.probabilities_tv = self._traced.probabilities_btv[0]

    def side(self, name: str) -> Side:
        """Return the numbers of this model."""
        return Side(
            name=name,
            source=self._source_texts[:MOST_PIECES],
            target=[self.vocabulary[number] for number in self._read[:MOST_PIECES]],
            asked=[self.vocabulary[number] for number in self._asked[:MOST_PIECES]],
            written=[self.vocabulary[number] for number in self.written],
            translation=self._translator.target_text(self.written[:-1]),
            log_probability=self._log_probability,
            steps=self._steps(self.probabilities_tv, CANDIDATES),
            lens=self._lens(),
            attentions=_attentions(self._traced),
        )

    def _steps(self, probabilities_tv: Tensor, count: int) -> list[Step]:
        best = probabilities_tv[:MOST_PIECES].topk(min(count, probabilities_tv.shape[1]))
        return [
            Step(
                [
                    NextPiece(self.vocabulary[number], _rounded(probability))
                    for number, probability in zip(ids, values, strict=True)
                ],
                _rounded(float(probabilities_tv[t, self._asked[t]])),
            )
            for t, (ids, values) in enumerate(
                zip(best.indices.tolist(), best.values.tolist(), strict=True)
            )
        ]

    @torch.no_grad()
    def _lens(self) -> list[Lens]:
        model, decoder = self._translator.model, self._traced.decoder
        rows = [("embedding", decoder.embedding.sum_btm)]
        rows += [
            (f"layer {n}", layer.feed_forward_residual.output_btm)
            for n, layer in enumerate(decoder.layers, start=1)
        ]
        said = [(n, model.logits(model.decoder.last_norm(x))[0].softmax(-1)) for n, x in rows]
        return [Lens(name, self._steps(found, 1)) for name, found in said]


def _attentions(traced: Trace) -> list[Attention]:
    """Return all attentions that the page draws, in the order of computation."""
    encoder = [
        (f"encoder.layers.{n}.self_attention", layer.self_attention)
        for n, layer in enumerate(traced.encoder.layers[: limits.MAX_LAYERS])
    ]
    decoder = [
        (f"decoder.layers.{n}.{part}", getattr(layer, part))
        for n, layer in enumerate(traced.decoder.layers[: limits.MAX_LAYERS])
        for part in ("self_attention", "cross_attention")
    ]
    found = []
    for key, attention in encoder + decoder:
        weights = attention.weights_bhts[0, : limits.MAX_HEADS, :MOST_PIECES, :MOST_PIECES]
        data = [_rounded(weight) for weight in weights.flatten().tolist()]
        found.append(Attention(key, list(weights.shape), data))
    return found


def _rounded(share: float) -> float:
    """Round to `DIGITS` significant digits, so that small numbers do not become 0."""
    return float(f"{share:.{DIGITS}g}")


def _parting(first: _Reading, second: _Reading) -> Parting | None:
    """Return the step in which the greedy translations diverge; None if they are equal.

    Both translations end with EOS, so neither can be the beginning of the other.
    """
    pairs = enumerate(zip(first.written, second.written, strict=False))
    step = next((n for n, (a, b) in pairs if a != b), None)
    if step is None:
        return None
    pieces = [first.written[step], second.written[step]]
    # Before this step, both models have written and read the same pieces.
    rows = [reading.probabilities_tv[step, pieces].tolist() for reading in (first, second)]
    return Parting(step, [[_rounded(p) for p in row] for row in rows])


def _cut(readings: Sequence[_Reading]) -> str:
    configs = [reading.config for reading in readings]
    cuts = (
        limits.left_out(max(c.encoder_layers for c in configs), limits.MAX_LAYERS, ENCODER),
        limits.left_out(max(c.decoder_layers for c in configs), limits.MAX_LAYERS, DECODER),
        limits.left_out(max(c.heads for c in configs), limits.MAX_HEADS, "heads"),
        limits.left_out(max(r.longest for r in readings), MOST_PIECES, "pieces"),
    )
    return "; ".join(cut for cut in cuts if cut)
