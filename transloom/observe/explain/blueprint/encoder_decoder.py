"""Build the boxes of the encoder–decoder Transformer (Vaswani et al. 2017, figure 1)."""

from model.config.transformer import ModelConfig
from transloom.observe.explain.blueprint.boxes import Blueprint, Box, FigureColumn, Kind, Weight
from transloom.observe.explain.blueprint.forms import head_lines, norm_title
from transloom.observe.explain.blueprint.parts import (
    Parameters,
    Shapes,
    box,
    dimensions,
    feed_forward,
    same_as,
    softmax,
    stack,
    sublayer,
)

SIDES = {"encoder": ("Source", "s"), "decoder": ("Target", "t")}


def encoder_decoder(config: ModelConfig, shapes: Shapes) -> Blueprint:
    """Return the figure of a network with these settings and parameter shapes."""
    return _Figure(config, shapes).blueprint()


class _Figure:
    def __init__(self, config: ModelConfig, shapes: Shapes) -> None:
        self._config = config
        self._parameters = Parameters(shapes)
        self._pre_norm = config.norm == "pre"
        self._vocabulary = shapes["target_embedding.weight"][0]

    def blueprint(self) -> Blueprint:
        encoder, decoder = (self._column(side) for side in SIDES)
        parameters = self._parameters
        decoder = decoder.model_copy(update={"after": (*decoder.after, *parameters.rest())})
        return Blueprint(
            title=f"Transformer, {self._config}, {self._config.norm}-norm",
            columns=(encoder, decoder),
            parameters=parameters.total,
        )

    def _column(self, side: str) -> FigureColumn:
        encodes = side == "encoder"
        count = self._config.encoder_layers if encodes else self._config.decoder_layers
        make = self._encoder_layer if encodes else self._decoder_layer
        return FigureColumn(
            name=side.capitalize(),
            before=self._input(side),
            layers=stack(count, lambda n: make(f"{side}.{n + 1}", f"{side}.layers.{n}")),
            after=(*self._last_norm(side), *(self._memory() if encodes else self._output())),
        )

    def _input(self, side: str) -> tuple[Box, ...]:
        name, length = SIDES[side]
        width, sharing = self._config.width, self._config.share_embeddings
        said = f"{length} × {width:,}, times √{width}"
        if side == "encoder" and sharing == "all":
            embedding = self._same("encoder.embedding", "embedding", "Source embedding", said)
        else:
            weights = self._parameters.take(f"{name.lower()}_embedding")
            title = f"{name} embedding"
            embedding = box(f"{side}.embedding", "embedding", title, [said], weights)
        ids = self._ids(side)
        if self._config.positions == "rotary":  # rotary positions rotate queries and keys instead
            return (ids, embedding)
        positions = [f"sines and cosines, {length} × {width:,}"]
        return (
            ids,
            embedding,
            box(f"{side}.positions", "positions", "Add positions", positions),
        )

    def _ids(self, side: str) -> Box:
        name, length = SIDES[side]
        start = "<s>" if self._config.decoder_start == "bos" else "<pad>"
        so_far = "" if side == "encoder" else f": {start} and those before"
        return box(f"{side}.ids", "ids", f"{name} pieces", [f"{length} ids{so_far}"])

    def _encoder_layer(self, key: str, prefix: str) -> list[Box]:
        return [
            *self._attention(key, prefix, "self_attention", "Self-attention", "sees all pieces"),
            *self._feed_forward(key, prefix),
        ]

    def _decoder_layer(self, key: str, prefix: str) -> list[Box]:
        return [
            *self._attention(
                key, prefix, "self_attention", "Masked self-attention", "sees earlier pieces only"
            ),
            *self._attention(
                key, prefix, "cross_attention", "Cross-attention", "keys, values of the memory"
            ),
            *self._feed_forward(key, prefix),
        ]

    def _attention(self, key: str, prefix: str, name: str, title: str, what: str) -> list[Box]:
        config = self._config
        rotated = config.positions == "rotary" and name == "self_attention"
        attention = box(
            f"{key}.{name}",
            "attention",
            title,
            [
                what,
                f"heads: {config.heads}, each {config.head_width} wide",
                *head_lines(config.heads, config.groups, rotated=rotated),
            ],
            self._parameters.take(f"{prefix}.{name}"),
            reads_memory=name == "cross_attention",
        )
        return self._sublayer(attention, f"{prefix}.{name}_norm")

    def _feed_forward(self, key: str, prefix: str) -> list[Box]:
        weights = self._parameters.take(f"{prefix}.feed_forward")
        network = feed_forward(key, self._config.activation, weights)
        return self._sublayer(network, f"{prefix}.feed_forward_norm")

    def _sublayer(self, operation: Box, norm_name: str) -> list[Box]:
        weights = self._parameters.take(norm_name)
        return sublayer(operation, self._config.norm_kind, weights, self._pre_norm)

    def _last_norm(self, side: str) -> list[Box]:
        if not self._pre_norm:
            return []
        weights = self._parameters.take(f"{side}.last_norm")
        title = norm_title(self._config.norm_kind, "last")
        return [box(f"{side}.last_norm", "norm", title, [], weights)]

    def _memory(self) -> list[Box]:
        layers = self._config.decoder_layers
        into = "the decoder layer" if layers == 1 else f"each of {layers} decoder layers"
        lines = [dimensions(("s", self._config.width)), f"read by {into}"]
        return [box("encoder.memory", "memory", "Memory", lines)]

    def _output(self) -> list[Box]:
        said = f"{dimensions((self._config.width, self._vocabulary))}: a logit for each piece"
        weights = self._parameters.take("output_embedding") + self._parameters.take("output_bias")
        if self._config.share_embeddings == "none":
            output = box("decoder.output", "output", "Output matrix", [said], weights)
        else:
            output = self._same("decoder.output", "output", "Output matrix", said, weights)
        return [output, softmax("decoder", self._vocabulary)]

    def _same(
        self, key: str, kind: Kind, title: str, said: str, weights: tuple[Weight, ...] = ()
    ) -> Box:
        name = "the target embedding"
        return same_as(key, kind, title, said, "decoder.embedding", name, weights)
