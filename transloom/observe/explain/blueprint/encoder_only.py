"""Build the boxes of an encoder alone, with pooling or a head (Devlin et al. 2019, §3)."""

from model.config.encoder_only import EncoderOnlyConfig
from model.config.sentence_encoder import SentenceEncoderConfig
from transloom.observe.explain.blueprint.boxes import Blueprint, Box, FigureColumn
from transloom.observe.explain.blueprint.forms import ACTIVATION_NAMES
from transloom.observe.explain.blueprint.parts import (
    NetworkFigure,
    Shapes,
    box,
    dimensions,
    softmax,
    stack,
)


def encoder_only(config: EncoderOnlyConfig, shapes: Shapes) -> Blueprint:
    """Return the figure of a network with these settings and parameter shapes."""
    return _Figure(config, shapes).blueprint()


class _Figure(NetworkFigure[EncoderOnlyConfig]):
    def __init__(self, config: EncoderOnlyConfig, shapes: Shapes) -> None:
        super().__init__(config, shapes, "encoder.embedding")
        self._is_masked = "head.dense.weight" in shapes
        self._pools = "pooler.weight" in shapes
        self._labels = shapes["classifier.weight"][0] if "classifier.weight" in shapes else 0

    def blueprint(self) -> Blueprint:
        config, parameters = self.config, self.parameters
        before = self._input()
        layers = stack(
            config.layers, lambda n: self._layer(f"encoder.{n + 1}", f"encoder.layers.{n}")
        )
        last = [self.norm("encoder.last_norm", "last")] if self.config.pre_norm else []
        after = (*last, *self._head(), *parameters.rest())
        return Blueprint(
            title=f"Encoder-only Transformer, {config}, {config.norm}-norm",
            columns=(FigureColumn(name="Encoder", before=before, layers=layers, after=after),),
            parameters=parameters.total,
        )

    def _input(self) -> tuple[Box, ...]:
        size = f"t × {self.config.width:,}"
        take = self.parameters.take
        ids = "t ids" + ", some of them <mask>" * self._is_masked
        boxes = [
            box("encoder.ids", "ids", "Pieces", [ids]),
            box("encoder.embedding", "embedding", "Embedding", [size], take("encoder.embedding")),
            box(
                "encoder.positions",
                "positions",
                "Add positions",
                [f"learned, {size}"],
                take("encoder.positions"),
            ),
        ]
        if self.config.segments:
            lines = [f"one of {self.config.segments:,} vectors, {size}"]
            segments = take("encoder.segments")
            boxes.append(box("encoder.segments", "embedding", "Add segments", lines, segments))
        if not self.config.pre_norm:
            boxes.append(self.norm("encoder.embedding_norm", "embeddings'"))
        return tuple(boxes)

    def _layer(self, key: str, prefix: str) -> list[Box]:
        config = self.config
        lines = [
            "sees all pieces of the text",
            f"heads: {config.heads}, each {config.head_width} wide",
        ]
        return [
            *self.attention(key, prefix, "self_attention", "Self-attention", lines),
            *self.feed_forward(key, prefix),
        ]

    def _head(self) -> list[Box]:
        if isinstance(self.config, SentenceEncoderConfig):
            return self._pooling(self.config)
        return self._masked_head() if self._is_masked else self._label_head()

    def _label_head(self) -> list[Box]:
        """Return the boxes of the label head, whose inputs are the m rows with a label.

        These are the first row of each text, or the first row of each word.
        """
        take, width = self.parameters.take, self.config.width
        which = "the first of each text" if self._pools else "the first of each word"
        boxes = []
        if self._pools:
            lines = [f"m × {width:,}: {which}", "W, tanh"]
            boxes.append(box("head.pooler", "feed-forward", "Pooler", lines, take("pooler")))
        said = [f"m × {self._labels:,}: a logit for each label" + f", {which}" * (not self._pools)]
        output = box("head.output", "output", "Output matrix", said, take("classifier"))
        return [*boxes, output, softmax("head", self._labels)]

    def _masked_head(self) -> list[Box]:
        """Return the boxes of the masked head, whose inputs are the m rows of masked pieces."""
        width, activation = self.config.width, ACTIVATION_NAMES[self.config.activation]
        dense = box(
            "head.dense",
            "feed-forward",
            "Head's dense layer",
            [f"m × {width:,}: masked pieces alone", f"W, {activation}"],
            self.parameters.take("head.dense"),
        )
        owner = ("encoder.embedding", "the embedding")
        output = self.output("head", self.parameters.take("output_bias"), owner)
        return [dense, self.norm("head.norm", "head's"), *output]

    def _pooling(self, config: SentenceEncoderConfig) -> list[Box]:
        """Return the boxes that compute one vector per sentence, and match p pairs of vectors."""
        how = "mean of the t rows" if config.pooling == "mean" else "the first of the t rows"
        size = dimensions((1, self.config.width))
        cosines = [f"of a vector with p others, over {config.temperature:g}"]
        return [
            box("pooling", "output", "Pooling", [f"{how}: {size}", "brought to length 1"]),
            box("cosines", "output", "Cosines", cosines),
            box("pairs.softmax", "softmax", "Softmax", ["p probabilities: which is its pair"]),
        ]
