"""Frames of a time-lapse without a network."""

from pathlib import Path

import numpy as np

from run_store.record.probe import AttentionMap, Prediction, Probe
from run_store.record.time_lapse import TimeLapseFrame, write_frame

SOURCE = ("▁je", "▁suis", "</s>")
EVEN = np.full((2, 2, 3), 1 / 3)


def made_probe(output: str, sentence: str = "je suis", weights: np.ndarray = EVEN) -> Probe:
    """Return the translation of one piece, with attention to three source pieces."""
    best = (Prediction(piece=output, probability=0.5), Prediction(piece="x", probability=0.25))
    return Probe(
        sentence=sentence,
        source=SOURCE,
        source_pieces=3,
        target=("<s>", output),
        output=output,
        ended=True,
        predictions=(best, best),
        attention=(AttentionMap.of("decoder.layers.0.cross_attention", weights),),
    )


def write_moments(folder: Path, outputs: dict[int, str], sentence: str = "je suis") -> None:
    """Write a time-lapse: the translations of a sentence, by step."""
    for step, output in outputs.items():
        write_frame(folder, TimeLapseFrame(step=step, probes=(made_probe(output, sentence),)))
