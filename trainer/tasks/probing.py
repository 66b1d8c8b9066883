"""Creation of a probe: pieces, greedy translation and attention for one sentence.

    sentence ─▶ ids, at most 32 ─▶ greedy search, bounded ─▶ one traced pass ─▶ Probe

Probing draws no random numbers, and does not change the network.
"""

from collections.abc import Iterator, Sequence

import torch

from data_pipeline.tokenizers.tokenizer import Tokenizer
from model.config.transformer import DecodingConfig, ModelConfig
from model.generation.search import greedy_search
from model.inspection.layer_traces import AttentionTrace
from model.inspection.trace import Trace, trace
from model.networks.transformer import Transformer
from run_store.record.probe import (
    MAX_LAYERS,
    MAX_PIECES,
    MAX_PREDICTIONS,
    MAX_WEIGHTS,
    AttentionMap,
    Prediction,
    Probe,
)


def probe(
    network: Transformer,
    source_tokenizer: Tokenizer,
    target_tokenizer: Tokenizer,
    sentence: str,
    tag: str | None = None,
) -> Probe:
    """Return the network's output for a sentence.

    Args:
        network: the network in evaluation mode.
        source_tokenizer: the tokenizer of the sentence.
        target_tokenizer: the tokenizer of its translation.
        sentence: the sentence; pieces beyond the limit are cut.
        tag: a tag to prepend to the sentence.

    Raises:
        ModelError: the network returns NaN, or is in training mode.
    """
    device = next(network.parameters()).device
    all_ids = source_tokenizer.encode_field([sentence], tag).ids.tolist()
    texts = pieces_read(source_tokenizer, sentence, all_ids)
    eos = network.vocabulary.eos_id
    ids = all_ids
    if len(all_ids) > MAX_PIECES:
        ids, texts = [*all_ids[: MAX_PIECES - 1], eos], [*texts[: MAX_PIECES - 1], texts[-1]]
    source = torch.tensor([ids], device=device)
    limit = _limit(len(ids))
    decoding = DecodingConfig(max_length_factor=0, max_extra_length=limit)
    (found,) = greedy_search(network, source, decoding)
    target = [network.vocabulary.bos_id, *found.ids]
    traced = trace(network, source, torch.tensor([target], device=device))
    best_tk, probabilities_tk = _best(network, traced)
    return Probe(
        sentence=sentence,
        tag=tag,
        source=tuple(texts),
        source_pieces=len(all_ids),
        target=tuple(target_tokenizer.piece(number) for number in target),
        output=target_tokenizer.decode([list(found.ids)])[0],
        ended=best_tk[-1][0] == eos,
        predictions=tuple(
            tuple(
                Prediction(piece=target_tokenizer.piece(number), probability=round(share, 6))
                for number, share in zip(numbers, shares, strict=True)
            )
            for numbers, shares in zip(best_tk, probabilities_tk, strict=True)
        ),
        attention=tuple(_maps(network.config, traced, len(ids), limit)),
    )


def pieces_read(tokenizer: Tokenizer, sentence: str, ids: Sequence[int]) -> list[str]:
    """Return the pieces of a sentence for display; unknown pieces also show their characters.

    Args:
        tokenizer: the tokenizer of the sentence.
        sentence: the sentence.
        ids: the ids of the tag if there is one, then of the sentence, then of EOS.
    """
    shown = [tokenizer.piece(number) for number in ids]
    read = tokenizer.pieces(sentence)
    first = len(ids) - 1 - len(read)  # index of the sentence's first piece, after the tag
    for place, characters in enumerate(read, start=first):
        if ids[place] == tokenizer.special_ids.unk:
            shown[place] = f"{characters} ({shown[place]})"
    return shown


def _limit(source_pieces: int) -> int:
    """Return the maximum length of a translation in pieces.

    The search needs this limit, because an untrained network seldom predicts EOS.
    """
    return min(MAX_PIECES, 2 * source_pieces + 4)


def _best(network: Transformer, traced: Trace) -> tuple[list[list[int]], list[list[float]]]:
    """Return ids and probabilities of the best pieces of each step, except padding and BOS."""
    probabilities_tv = traced.probabilities_btv[0].clone()
    vocabulary = network.vocabulary
    probabilities_tv[:, sorted({vocabulary.pad_id, vocabulary.bos_id})] = 0
    best = probabilities_tv.topk(min(MAX_PREDICTIONS, probabilities_tv.shape[1]), dim=1)
    return best.indices.tolist(), best.values.clamp(0, 1).tolist()


def _maps(
    config: ModelConfig, traced: Trace, source_pieces: int, limit: int
) -> Iterator[AttentionMap]:
    """Yield the maps of the last layers; average the heads if all maps together could be too large.

    The decision depends on the maximum length of the translation, not on its actual length. So it
    is the same at all steps of a run.
    """
    encoder, decoder = traced.encoder.layers, traced.decoder.layers
    of_a_head = min(len(encoder), MAX_LAYERS) * source_pieces**2
    of_a_head += min(len(decoder), MAX_LAYERS) * limit * (limit + source_pieces)
    mean = config.heads * of_a_head > MAX_WEIGHTS
    for place, attention in _attentions(traced):
        weights_hts = attention.weights_bhts[0].float()
        if mean:
            weights_hts = weights_hts.mean(dim=0, keepdim=True)
        yield AttentionMap.of(place, weights_hts.cpu().numpy(), config.heads if mean else 1)


def _attentions(traced: Trace) -> Iterator[tuple[str, AttentionTrace]]:
    for n, encoder in list(enumerate(traced.encoder.layers))[-MAX_LAYERS:]:
        yield f"encoder.layers.{n}.self_attention", encoder.self_attention
    for n, decoder in list(enumerate(traced.decoder.layers))[-MAX_LAYERS:]:
        yield f"decoder.layers.{n}.self_attention", decoder.self_attention
        yield f"decoder.layers.{n}.cross_attention", decoder.cross_attention
