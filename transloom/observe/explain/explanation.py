"""Trace a sentence through a trained model, and return the numbers as data.

    sentence ──pieces──▶ greedy search ──output pieces──▶ one traced pass over all steps

Row t of the trace is decoding step t (see `model.inspection.trace`), so one pass contains every
step.
"""

from dataclasses import dataclass

import torch

from model.config.transformer import ModelConfig
from model.generation.search import greedy_search
from model.inspection.trace import Trace, trace
from transloom.inference.translator import Translator
from transloom.observe.explain.blueprint.boxes import Blueprint
from transloom.observe.explain.blueprint.networks import blueprint_of_network


@dataclass(frozen=True)
class TracedPieces:
    """Pieces with their ids, in order."""

    ids: tuple[int, ...]
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Explanation:
    """All numbers that the page shows about a sentence.

    Attributes:
        source: the pieces that the encoder reads, with EOS as the last one. Unknown pieces include
            their characters.
        target_input: the pieces that the decoder reads, one per step, with BOS as the first one.
        chosen: the piece that each step chose; the last one is EOS. As long as `target_input`.
        never_chosen: ids that the search excludes regardless of their probability: padding and BOS.
        trace: the pass over source and target input, a batch of one sentence.
        translation: the text of the chosen pieces.
        beam_translation: the translation that the search of the run's recipe finds.
    """

    sentence: str
    source: TracedPieces
    target_input: TracedPieces
    chosen: TracedPieces
    never_chosen: frozenset[int]
    trace: Trace
    translation: str
    beam_translation: str
    beam_size: int
    config: ModelConfig
    vocabulary: tuple[str, ...]
    blueprint: Blueprint
    checkpoint: str


def explain(
    translator: Translator, sentence: str, tag: str | None = None, max_tokens: int | None = None
) -> Explanation:
    """Translate a sentence greedily, and trace every step.

    Args:
        tag: tag to put before the sentence, as in training; None for no tag.
        max_tokens: maximum number of tokens in the sentence; None uses the model's maximum from
            training.

    Raises:
        LongSentenceError: the sentence has more tokens.
        TokenizerError: the model does not know the tag.
        ModelError: the network returns NaN.
    """
    model = translator.model
    device = next(model.parameters()).device
    source_ids = translator.source_ids(sentence, tag)
    source = torch.tensor([source_ids], device=device)
    (found,) = greedy_search(model, source, translator.decoding)
    bos, eos = model.vocabulary.bos_id, model.vocabulary.eos_id
    input_ids, chosen_ids = (bos, *found.ids), (*found.ids, eos)
    size = model.vocabulary.target_size
    return Explanation(
        sentence=sentence,
        source=TracedPieces(tuple(source_ids), tuple(translator.source_texts(sentence, tag))),
        target_input=TracedPieces(input_ids, tuple(translator.target_pieces(input_ids))),
        chosen=TracedPieces(chosen_ids, tuple(translator.target_pieces(chosen_ids))),
        never_chosen=frozenset((model.vocabulary.pad_id, bos)),
        trace=trace(model, source, torch.tensor([input_ids], device=device)),
        translation=translator.target_text(found.ids),
        beam_translation=translator.translate([sentence], tag, max_tokens=max_tokens)[0],
        beam_size=translator.decoding.beam_size,
        config=model.config,
        vocabulary=tuple(translator.target_pieces(range(size))),
        blueprint=blueprint_of_network(model.config, model),
        checkpoint=translator.checkpoint.path.name,
    )
