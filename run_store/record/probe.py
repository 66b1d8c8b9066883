"""Compact record of a network's output for one sentence during training.

A `Probe` has the sentence's pieces, the best predictions of each decoding step, and the attention
maps of the last layers. Attention weights are rounded to 255ths, one byte each. This module does
not need torch; `trainer.tasks.probing` creates probes.
"""

import base64
import binascii
import math
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from foundation.file_model import FileModel
from foundation.wording import counted
from run_store.config import LONGEST_PROBE

MAX_PIECES = 32  # maximum for a sentence and for its translation, EOS included
MAX_PREDICTIONS = 3  # maximum per decoding step
MAX_LAYERS = 12  # maximum per stack; the last layers are kept
MAX_WEIGHTS = 48_000  # maximum of all maps of a probe together; for larger maps, heads are averaged
FULL = 255  # byte value that represents an attention weight of 1

_PLACE = r"^(encoder\.layers\.\d{1,4}\.self|decoder\.layers\.\d{1,4}\.(self|cross))_attention$"
_Piece = Annotated[str, Field(max_length=1_000)]
_Pieces = Annotated[tuple[_Piece, ...], Field(min_length=1, max_length=MAX_PIECES)]
_Axis = Annotated[int, Field(ge=1, le=MAX_WEIGHTS)]


class Prediction(FileModel):
    """Candidate for the next piece, and its probability."""

    piece: _Piece
    probability: Annotated[float, Field(ge=0, le=1)]


class AttentionMap(FileModel):
    """Attention weights of one layer for one sentence.

    Attributes:
        place: the name of the attention module, such as decoder.layers.1.cross_attention.
        shape: heads, rows (queries), and columns (keys).
        mean_of_heads: the number of heads that were averaged; 1 if the heads were not averaged.
        weights: one byte per weight, 255 for a weight of 1, as base64.
    """

    place: Annotated[str, Field(pattern=_PLACE)]
    shape: tuple[_Axis, _Axis, _Axis]
    mean_of_heads: int = 1
    weights: Annotated[str, Field(max_length=2 * MAX_WEIGHTS)]

    @classmethod
    def of(cls, place: str, weights_hts: np.ndarray, mean_of_heads: int = 1) -> Self:
        """Create the map of weights between 0 and 1, [heads, queries, keys]."""
        rounded = np.rint(weights_hts * FULL).clip(0, FULL).astype(np.uint8)
        heads, rows, columns = rounded.shape
        text = base64.b64encode(rounded.tobytes()).decode("ascii")
        shape = (heads, rows, columns)
        return cls(place=place, shape=shape, mean_of_heads=mean_of_heads, weights=text)

    @property
    def bytes_hts(self) -> NDArray[np.uint8]:
        """Weights in 255ths, [heads, queries, keys]."""
        data = base64.b64decode(self.weights, validate=True)
        return np.frombuffer(data, np.uint8).reshape(self.shape)

    @model_validator(mode="after")
    def _has_a_byte_for_each(self) -> Self:
        try:
            found = len(base64.b64decode(self.weights, validate=True))
        except binascii.Error as error:
            raise ValueError(f"weights are not base64: {error}") from error
        if found != math.prod(self.shape):
            raise ValueError(
                f"weights have {found:,} bytes, expected {math.prod(self.shape):,} for the shape "
                f"{self.shape}"
            )
        return self


class Probe(FileModel):
    """Pieces, predictions and attention of a network for one sentence.

    Attributes:
        sentence: the sentence.
        tag: the tag that was prepended, or None.
        source: the pieces that the encoder reads; ends with EOS.
        source_pieces: the number of pieces of the whole sentence, even if `source` was cut.
        target: the pieces that the decoder reads, one per decoding step; begins with BOS.
        output: the text that greedy search finds.
        ended: whether the search ended with EOS; otherwise it reached the limit of pieces.
        predictions: for each decoding step, the most probable next pieces, best first.
        attention: the attention maps of the last layers, in the order of computation.
    """

    sentence: Annotated[str, Field(max_length=LONGEST_PROBE)]
    tag: _Piece | None = None
    source: _Pieces
    source_pieces: int
    target: _Pieces
    output: Annotated[str, Field(max_length=1_000 * MAX_PIECES)]
    ended: bool
    predictions: Annotated[
        tuple[Annotated[tuple[Prediction, ...], Field(max_length=MAX_PREDICTIONS)], ...],
        Field(max_length=MAX_PIECES),
    ]
    attention: Annotated[tuple[AttentionMap, ...], Field(max_length=3 * MAX_LAYERS)]

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if len(self.predictions) != len(self.target):
            raise ValueError(
                f"{counted(len(self.predictions), 'prediction')} for a translation of "
                f"{counted(len(self.target), 'step')}"
            )
        if not any(one.place.endswith("cross_attention") for one in self.attention):
            raise ValueError("attention has no map of a cross-attention")
        for one in self.attention:
            stack = {"source": len(self.source), "target": len(self.target)}
            rows, columns = sides_of(one.place)
            if one.shape[1:] != (stack[rows], stack[columns]):
                raise ValueError(
                    f"{one.place} has the shape {one.shape}, which does not match the numbers of "
                    f"pieces {stack}"
                )
        return self


def sides_of(place: str) -> tuple[str, str]:
    """Return the sides, "source" or "target", of the rows and columns of an attention map."""
    looks = "source" if place.startswith("encoder.") else "target"
    return looks, "source" if place.endswith("cross_attention") else looks
