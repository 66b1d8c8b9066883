"""Trace a text through a network with one stack, and return the numbers as data.

text with [MASK] ──pieces──▶ one traced pass ──▶ FilledText: candidates for each [MASK]
text ──pieces──▶ greedy steps ──▶ one traced pass over all ──▶ ContinuedText
"""

from dataclasses import dataclass

from data_pipeline.tasks.masking import vocabulary_of
from data_pipeline.tokenizers.tokenizer import Tokenizer
from model.config.decoder_only import DecoderOnlyConfig, SamplingConfig
from model.config.encoder_only import EncoderOnlyConfig
from model.generation.sampling import generate
from model.inspection.text_trace import (
    DecoderOnlyTrace,
    MaskedTrace,
    trace_decoder_only,
    trace_masked,
)
from trainer.errors import TextError
from transloom.inference.mask_filler import MaskFiller
from transloom.inference.text_generator import TextGenerator
from transloom.observe.explain import limits
from transloom.observe.explain.blueprint.boxes import Blueprint
from transloom.observe.explain.blueprint.networks import blueprint_of_network
from transloom.observe.explain.explanation import TracedPieces

STEPS = limits.MAX_STEPS


@dataclass(frozen=True)
class TextExplanation:
    """Numbers that the pages of both kinds of models show.

    Attributes:
        text: the text that the user gave.
        pieces: the pieces that the network reads, beginning with BOS.
        positions: the position of each piece.
    """

    text: str
    pieces: TracedPieces
    positions: tuple[int, ...]
    config: EncoderOnlyConfig | DecoderOnlyConfig
    vocabulary: tuple[str, ...]
    blueprint: Blueprint
    checkpoint: str


@dataclass(frozen=True)
class FilledText(TextExplanation):
    """Text with hidden pieces.

    Attributes:
        ordinary: ids of pieces that can be hidden; special pieces cannot.
        filled: the text with the most probable piece at each [MASK].
        is_pair: True if the text has two sides, each with its own segment and positions.
        trace: the pass over `pieces`; its places are the positions of [MASK].
    """

    ordinary: tuple[int, ...]
    filled: str
    is_pair: bool
    trace: MaskedTrace


@dataclass(frozen=True)
class ContinuedText(TextExplanation):
    """Text with its greedy continuation.

    Attributes:
        given: number of pieces at the start of `pieces` that are BOS and the given text; the other
            pieces are the continuation.
        is_cut: True if BOS and the beginning of the text are left out, because they do not fit.
        chosen: the piece that each step chose; the last one was not fed back to the network.
        continuation: the text of the chosen pieces.
        trace: the pass over `pieces`.
    """

    given: int
    is_cut: bool
    chosen: TracedPieces
    continuation: str
    trace: DecoderOnlyTrace


def explain_filling(filler: MaskFiller, text: str) -> FilledText:
    """Fill in the hidden pieces of a text, and trace the pass.

    Raises:
        TextError: see `MaskFiller.fill`.
    """
    network, tokenizer = filler.network, filler.tokenizer
    (found,) = filler.fill([text])
    row = filler.row(text)
    mask = vocabulary_of(tokenizer).mask
    places = [place for place, token in enumerate(row.ids) if token == mask]
    config = network.encoder.config
    return FilledText(
        text=text,
        pieces=_pieces(tokenizer, row.ids),
        config=config,
        vocabulary=_vocabulary(tokenizer),
        ordinary=tuple(vocabulary_of(tokenizer).ordinary.tolist()),
        blueprint=blueprint_of_network(config, network),
        checkpoint=filler.checkpoint.path.name,
        filled=found.filled,
        positions=tuple(row.positions),
        is_pair=len(set(row.segments)) > 1,
        trace=trace_masked(network, row.ids, places, row.segments, row.positions),
    )


def explain_continuing(generator: TextGenerator, text: str) -> ContinuedText:
    """Continue a text greedily by up to `STEPS` pieces, and trace the pass.

    If the text is longer than the network's context, only its end is read, as in
    `TextGenerator.generate`.

    Raises:
        TextError: the network has too few learned positions for the text and its continuation.
    """
    network, tokenizer = generator.network, generator.tokenizer
    whole, prompt = generator.ids(text), generator.read_ids(text)
    longest = network.context_length - STEPS
    if network.config.positions == "learned" and len(whole) > longest:
        raise TextError(
            f"The text has {len(whole)} tokens with BOS. The page adds {STEPS} tokens, but the "
            f"network has learned only {network.context_length} positions. Give a text of at most "
            f"{longest} tokens with BOS."
        )
    chosen = _greedy(generator, prompt)
    read = [*prompt, *chosen[:-1]]
    return ContinuedText(
        text=text,
        pieces=_pieces(tokenizer, read, ["", *tokenizer.pieces(text)][-len(prompt) :]),
        positions=tuple(range(len(read))),
        config=network.config,
        vocabulary=_vocabulary(tokenizer),
        blueprint=blueprint_of_network(network.config, network),
        checkpoint=generator.checkpoint.path.name,
        given=len(prompt),
        is_cut=len(prompt) < len(whole),
        chosen=_pieces(tokenizer, chosen),
        continuation=tokenizer.decode([chosen])[0],
        trace=trace_decoder_only(network, read),
    )


def _greedy(generator: TextGenerator, prompt: list[int]) -> list[int]:
    """Return the most probable pieces in sequence, up to EOS or `STEPS` pieces."""
    greedy = SamplingConfig(max_new_tokens=STEPS, temperature=0)
    eos = generator.tokenizer.eos_id
    (found,) = generate(generator.network, [prompt], greedy, eos)
    return [*found.ids, *([eos] if found.ended == "eos" else [])]


def _pieces(tokenizer: Tokenizer, ids: list[int], read: list[str] | None = None) -> TracedPieces:
    """Return the pieces of ids; replace unknown pieces by their characters in `read`.

    Args:
        read: the first of these pieces, with the text's characters for unknown pieces.
    """
    shown = [tokenizer.piece(number) for number in ids]
    for place, characters in enumerate(read or []):
        if ids[place] == tokenizer.special_ids.unk:
            shown[place] = f"{characters} ({shown[place]})"
    return TracedPieces(tuple(ids), tuple(shown))


def _vocabulary(tokenizer: Tokenizer) -> tuple[str, ...]:
    return tuple(map(tokenizer.piece, range(tokenizer.vocabulary_size)))
