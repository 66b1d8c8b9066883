"""Build the boxes of a decoder-only Transformer (Radford et al. 2018; Touvron et al. 2023)."""

from model.config.decoder_only import DecoderOnlyConfig
from transloom.observe.explain.blueprint.boxes import Blueprint, Box, FigureColumn
from transloom.observe.explain.blueprint.forms import head_lines
from transloom.observe.explain.blueprint.parts import NetworkFigure, Shapes, box, stack


def decoder_only(config: DecoderOnlyConfig, shapes: Shapes) -> Blueprint:
    """Return the figure of a network with these settings and parameter shapes."""
    return _Figure(config, shapes, "embedding").blueprint()


class _Figure(NetworkFigure[DecoderOnlyConfig]):
    def blueprint(self) -> Blueprint:
        config, parameters = self.config, self.parameters
        before = self._input()
        layers = stack(config.layers, lambda n: self._layer(f"decoder.{n + 1}", f"layers.{n}"))
        last = self.norm("decoder.last_norm", "last", "last_norm")
        owner = ("decoder.embedding", "the embedding") if config.tie_embeddings else None
        output = self.output("decoder", parameters.take("output_embedding"), owner)
        after = (last, *output, *parameters.rest())
        return Blueprint(
            title=f"Decoder-only Transformer, {config}",
            columns=(FigureColumn(name="Decoder", before=before, layers=layers, after=after),),
            parameters=parameters.total,
        )

    def _input(self) -> tuple[Box, ...]:
        config, width = self.config, self.config.width
        # The model also multiplies embeddings by √width if positions are sinusoidal, so that the
        # vectors are as large as the sines that are added.
        scaled = f", times √{width}" if config.positions == "sinusoidal" else ""
        boxes = [
            box("decoder.ids", "ids", "Pieces", ["t ids: the text so far"]),
            box(
                "decoder.embedding",
                "embedding",
                "Embedding",
                [f"t × {width:,}{scaled}"],
                self.parameters.take("embedding"),
            ),
        ]
        if config.positions != "rotary":  # rotary positions rotate queries and keys instead
            learned = config.positions == "learned"
            boxes.append(
                box(
                    "decoder.positions",
                    "positions",
                    "Add positions",
                    [f"{'learned' if learned else 'sines and cosines'}, t × {width:,}"],
                    self.parameters.take("positions"),
                )
            )
        return tuple(boxes)

    def _layer(self, key: str, prefix: str) -> list[Box]:
        config = self.config
        lines = [
            "sees earlier pieces only",
            f"heads of queries: {config.heads}, {config.head_width} wide",
            *head_lines(config.heads, config.groups, rotated=config.positions == "rotary"),
        ]
        title = "Masked self-attention"
        return [
            *self.attention(key, prefix, "self_attention", title, lines),
            *self.feed_forward(key, prefix),
        ]
