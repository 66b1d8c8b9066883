"""Decoding options from the command line; this module imports neither torch nor an engine."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from transloom.inference.engine_names import ComputeType, Engine, Precision

if TYPE_CHECKING:
    from model.config.transformer import DecodingConfig


@dataclass(frozen=True)
class DecodingOptions:
    """Options for the search of translations.

    Attributes:
        beam_size, length_penalty: replace the recipe's values; None keeps them.
        n_best: number of translations per sentence.
        precision: number format of the weights and the network.
        engine, compute_type: as in `Translator.load`.
    """

    beam_size: int | None = None
    length_penalty: float | None = None
    n_best: int = 1
    precision: Precision = "fp32"
    engine: Engine = Engine.TORCH
    compute_type: ComputeType | None = None

    def applied_to(self, decoding: "DecodingConfig") -> "DecodingConfig":
        """Return a copy of `decoding` with these options; its beam size is at least `n_best`."""
        width = decoding.beam_size if self.beam_size is None else self.beam_size
        alpha = decoding.length_penalty if self.length_penalty is None else self.length_penalty
        changes = {"beam_size": max(width, self.n_best), "length_penalty": alpha}
        return decoding.model_copy(update=changes)


OF_THE_RECIPE = DecodingOptions()
