"""Build the boxes of a decoder-only Transformer (Radford et al. 2018; Touvron et al. 2023)."""

from model.config.decoder_only import DecoderOnlyConfig
from transloom.observe.explain.blueprint.boxes import Blueprint, Box, FigureColumn
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


def decoder_only(config: DecoderOnlyConfig, shapes: Shapes) -> Blueprint:
    """Return the figure of a network with these settings and parameter shapes."""
    return _Figure(config, shapes).blueprint()


class _Figure:
    def __init__(self, config: DecoderOnlyConfig, shapes: Shapes) -> None:
        self._config = config
        self._parameters = Parameters(shapes)
        self._vocabulary = shapes["embedding.weight"][0]

    def blueprint(self) -> Blueprint:
        config, parameters = self._config, self._parameters
        before = self._input()
        layers = stack(config.layers, lambda n: self._layer(f"decoder.{n + 1}", f"layers.{n}"))
        last = box(
            "decoder.last_norm",
            "norm",
            norm_title(config.norm, "last"),
            [],
            parameters.take("last_norm"),
        )
        after = (last, self._output(), softmax("decoder", self._vocabulary), *parameters.rest())
        return Blueprint(
            title=f"Decoder-only Transformer, {config}",
            columns=(FigureColumn(name="Decoder", before=before, layers=layers, after=after),),
            parameters=parameters.total,
        )

    def _input(self) -> tuple[Box, ...]:
        config, width = self._config, self._config.width
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
                self._parameters.take("embedding"),
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
                    self._parameters.take("positions"),
                )
            )
        return tuple(boxes)

    def _layer(self, key: str, prefix: str) -> list[Box]:
        config = self._config
        lines = [
            f"heads of queries: {config.heads}, {config.head_width} wide",
            *head_lines(config.heads, config.groups, rotated=config.positions == "rotary"),
        ]
        attention = box(
            f"{key}.self_attention",
            "attention",
            "Masked self-attention",
            ["sees earlier pieces only", *lines],
            self._parameters.take(f"{prefix}.self_attention"),
        )
        weights = self._parameters.take(f"{prefix}.feed_forward")
        network = feed_forward(key, config.activation, weights)
        boxes: list[Box] = []
        for operation, name in ((attention, "self_attention"), (network, "feed_forward")):
            weights = self._parameters.take(f"{prefix}.{name}_norm")
            boxes += sublayer(operation, config.norm, weights, norm_first=True)
        return boxes

    def _output(self) -> Box:
        said = f"{dimensions((self._config.width, self._vocabulary))}: a logit for each piece"
        if self._config.tie_embeddings:
            key, title = "decoder.output", "Output matrix"
            return same_as(key, "output", title, said, "decoder.embedding", "the embedding")
        weights = self._parameters.take("output_embedding")
        return box("decoder.output", "output", "Output matrix", [said], weights)
