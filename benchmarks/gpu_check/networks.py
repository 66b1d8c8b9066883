"""Build small networks of every kind with one batch each, for the stages.

The widths are chosen so that a flash kernel supports the heads. Weights are enlarged, because the
initial weights make attention nearly uniform, which could hide an error.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from model.config.decoder_only import DecoderOnlyConfig
from model.config.encoder_only import EncoderOnlyConfig, LabelTextsConfig
from model.config.sentence_encoder import SentenceEncoderConfig
from model.config.transformer import AttentionBackend, ModelConfig
from model.heads.label_head import LabelModel
from model.heads.masked_head import MaskedLanguageModel
from model.heads.sentence_encoder import SentenceEncoder
from model.losses.loss import CrossEntropy
from model.networks.decoder_only import DecoderOnly
from model.networks.transformer import Transformer, Vocabulary

PAD, BOS, EOS, PIECES = 0, 2, 3, 40
LOSS = CrossEntropy(0.1)
CONTEXT, LABELS = 64, 7
PARTS = [[5, 1, 40], [60], [2, 30, 4, 1, 2], [17, 17]]  # number of tokens in each part of each row
SPREAD = 1.5

# Function that returns a network in training mode on the CPU, and the inputs of its forward pass
# including the loss.
Build = Callable[[AttentionBackend], tuple[Any, list[Tensor]]]


def transformer(
    backend: AttentionBackend, dropout: float = 0.0
) -> tuple[Transformer, list[Tensor]]:
    """Build an encoder-decoder, with a batch of sentences of different lengths."""
    config = ModelConfig(
        encoder_layers=2,
        decoder_layers=2,
        width=64,
        feed_forward_width=96,
        heads=4,
        dropout=dropout,
    )
    torch.manual_seed(0)
    network = _enlarged(Transformer(config, Vocabulary(PIECES, PIECES, PAD, BOS, EOS), backend))
    source, target = _sentences([9, 1, 40, 17], 1), _sentences([6, 23, 1, 3], 2)
    shifted = torch.cat([torch.full((len(target), 1), BOS), target[:, :-1]], dim=1)
    return network, [source, shifted.masked_fill(shifted == EOS, PAD), target]


def decoder_only(backend: AttentionBackend) -> tuple[DecoderOnly, list[Tensor]]:
    """Build a Llama network with grouped queries, with a batch whose rows have several parts."""
    config = DecoderOnlyConfig(
        preset="llama", layers=2, width=64, heads=4, key_value_heads=2, dropout=0.0
    )
    torch.manual_seed(0)
    network = _enlarged(DecoderOnly(config, PIECES, PAD, CONTEXT, backend))
    ids, part, _ = _rows_of_parts(PARTS)
    target = ids.roll(-1, dims=1)
    return network, [ids, target, part]


def masked(backend: AttentionBackend) -> tuple[MaskedLanguageModel, list[Tensor]]:
    """Build a BERT network, with a batch in which every third token has a label."""
    torch.manual_seed(0)
    network = _enlarged(MaskedLanguageModel(_encoder(EncoderOnlyConfig), PIECES, CONTEXT, backend))
    ids, part, position = _rows_of_parts(PARTS)
    place = (part >= 0).flatten().nonzero().squeeze(1)[::3]
    return network, [ids, torch.zeros_like(ids), position, part, place, ids.flatten()[place]]


def labels(backend: AttentionBackend) -> tuple[LabelModel, list[Tensor]]:
    """Build a BERT network that classifies texts, with a batch of labelled texts."""
    torch.manual_seed(0)
    config = _encoder(LabelTextsConfig)
    network = _enlarged(LabelModel(config, PIECES, CONTEXT, LABELS, backend))
    ids, part, position = _rows_of_parts(PARTS)
    place = ((part >= 0) & (position == 0)).flatten().nonzero().squeeze(1)
    target = torch.arange(len(place)) % LABELS
    return network, [ids, torch.zeros_like(ids), position, part, place, target]


def embeddings(backend: AttentionBackend) -> tuple[SentenceEncoder, list[Tensor]]:
    """Build a sentence encoder, with a batch of four pairs."""
    torch.manual_seed(0)
    config = _encoder(SentenceEncoderConfig, temperature=0.5)
    network = _enlarged(SentenceEncoder(config, PIECES, CONTEXT, backend))
    ids, part, position = _rows_of_parts([[n] for n in (9, 30, 2, 17, 8, 33, 5, 20)])
    return network, [ids, torch.zeros_like(ids), position, part]


BUILDERS: dict[str, Build] = {
    "transformer": transformer,
    "decoder_only": decoder_only,
    "masked": masked,
}


def _encoder(kind: Any, **settings: Any) -> Any:
    small = {"layers": 2, "width": 64, "heads": 4, "feed_forward_width": 96, "dropout": 0.0}
    return kind.model_validate({"preset": "bert", **small, **settings})


def _enlarged(network: Any) -> Any:
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
            else:
                parameter.mul_(SPREAD)
    return network


def _sentences(lengths: list[int], seed: int) -> Tensor:
    """Return random sentences that end with EOS, padded at the end."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.full((len(lengths), max(lengths)), PAD)
    for row, length in enumerate(lengths):
        ids[row, : length - 1] = torch.randint(EOS + 1, PIECES, (length - 1,), generator=generator)
        ids[row, length - 1] = EOS
    return ids


def _rows_of_parts(rows: list[list[int]]) -> tuple[Tensor, Tensor, Tensor]:
    """Return random ids, the number of the part of each id, and its position in the part."""
    width = max(map(sum, rows))
    generator = torch.Generator().manual_seed(3)
    ids = torch.zeros(len(rows), width, dtype=torch.int64)
    part, position = torch.full_like(ids, -1), torch.zeros_like(ids)
    for row, lengths in enumerate(rows):
        n = sum(lengths)
        ids[row, :n] = torch.randint(EOS + 1, PIECES, (n,), generator=generator)
        part[row, :n] = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
        position[row, :n] = torch.cat([torch.arange(length) for length in lengths])
    return ids, part, position
