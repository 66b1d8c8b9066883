"""Build the boxes of the encoder–decoder Transformer (Vaswani et al. 2017, figure 1)."""

from model.config.transformer import ModelConfig
from transloom.observe.explain.blueprint.boxes import Blueprint, Box, FigureColumn
from transloom.observe.explain.blueprint.forms import head_lines
from transloom.observe.explain.blueprint.parts import (
    NetworkFigure,
    Shapes,
    box,
    dimensions,
    same_as,
    stack,
)

TARGET_EMBEDDING = ("decoder.embedding", "the target embedding")  # key of the box, name in texts
SIDES = {"encoder": ("Source", "s"), "decoder": ("Target", "t")}


def encoder_decoder(config: ModelConfig, shapes: Shapes) -> Blueprint:
    """Return the figure of a network with these settings and parameter shapes."""
    return _Figure(config, shapes, "target_embedding").blueprint()


class _Figure(NetworkFigure[ModelConfig]):
    def blueprint(self) -> Blueprint:
        encoder, decoder = (self._column(side) for side in SIDES)
        parameters = self.parameters
        decoder = decoder.model_copy(update={"after": (*decoder.after, *parameters.rest())})
        return Blueprint(
            title=f"Transformer, {self.config}, {self.config.norm}-norm",
            columns=(encoder, decoder),
            parameters=parameters.total,
        )

    def _column(self, side: str) -> FigureColumn:
        encodes = side == "encoder"
        count = self.config.encoder_layers if encodes else self.config.decoder_layers
        last = [self.norm(f"{side}.last_norm", "last")] if self.config.pre_norm else []
        make = self._encoder_layer if encodes else self._decoder_layer
        return FigureColumn(
            name=side.capitalize(),
            before=self._input(side),
            layers=stack(count, lambda n: make(f"{side}.{n + 1}", f"{side}.layers.{n}")),
            after=(*last, *(self._memory() if encodes else self._output())),
        )

    def _input(self, side: str) -> tuple[Box, ...]:
        name, length = SIDES[side]
        width, sharing = self.config.width, self.config.share_embeddings
        said = f"{length} × {width:,}, times √{width}"
        if side == "encoder" and sharing == "all":
            title = "Source embedding"
            embedding = same_as("encoder.embedding", "embedding", title, said, *TARGET_EMBEDDING)
        else:
            weights = self.parameters.take(f"{name.lower()}_embedding")
            title = f"{name} embedding"
            embedding = box(f"{side}.embedding", "embedding", title, [said], weights)
        ids = self._ids(side)
        if self.config.positions == "rotary":  # rotary positions rotate queries and keys instead
            return (ids, embedding)
        positions = [f"sines and cosines, {length} × {width:,}"]
        return (
            ids,
            embedding,
            box(f"{side}.positions", "positions", "Add positions", positions),
        )

    def _ids(self, side: str) -> Box:
        name, length = SIDES[side]
        start = "<s>" if self.config.decoder_start == "bos" else "<pad>"
        so_far = "" if side == "encoder" else f": {start} and those before"
        return box(f"{side}.ids", "ids", f"{name} pieces", [f"{length} ids{so_far}"])

    def _encoder_layer(self, key: str, prefix: str) -> list[Box]:
        return [
            *self._attention(key, prefix, "self_attention", "Self-attention", "sees all pieces"),
            *self.feed_forward(key, prefix),
        ]

    def _decoder_layer(self, key: str, prefix: str) -> list[Box]:
        return [
            *self._attention(
                key, prefix, "self_attention", "Masked self-attention", "sees earlier pieces only"
            ),
            *self._attention(
                key, prefix, "cross_attention", "Cross-attention", "keys, values of the memory"
            ),
            *self.feed_forward(key, prefix),
        ]

    def _attention(self, key: str, prefix: str, name: str, title: str, what: str) -> list[Box]:
        config = self.config
        rotated = config.positions == "rotary" and name == "self_attention"
        lines = [
            what,
            f"heads: {config.heads}, each {config.head_width} wide",
            *head_lines(config.heads, config.groups, rotated=rotated),
        ]
        return self.attention(key, prefix, name, title, lines)

    def _memory(self) -> list[Box]:
        layers = self.config.decoder_layers
        into = "the decoder layer" if layers == 1 else f"each of {layers} decoder layers"
        lines = [dimensions(("s", self.config.width)), f"read by {into}"]
        return [box("encoder.memory", "memory", "Memory", lines)]

    def _output(self) -> list[Box]:
        weights = self.parameters.take("output_embedding") + self.parameters.take("output_bias")
        owner = None if self.config.share_embeddings == "none" else TARGET_EMBEDDING
        return self.output("decoder", weights, owner)
