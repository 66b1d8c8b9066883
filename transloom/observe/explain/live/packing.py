"""Pack a translator for a page: all weights in fp32, config and tokenizers, as one JSON object.

    weights ─▶ little-endian float32 ─▶ first bytes, second bytes, … ─┐
    normalisers' tables ──────────────────────────────────────────────┴▶ deflate ─▶ base 85

The exponents of weights are similar, and compress better if their bytes are adjacent. Base 85
writes four bytes as five characters (RFC 1924), with a comma instead of "<", which has a meaning in
HTML.
"""

import base64
import zlib
from typing import Any

import numpy as np
from torch import Tensor

from model.blocks.positions import angles_per_position
from model.config.transformer import ModelConfig
from model.networks.transformer import Transformer
from transloom.inference.translator import Translator
from transloom.observe.explain.live.errors import NotLiveError
from transloom.observe.explain.live.sentence_piece import packed_tokenizer

MOST_PIECES = 128  # of a sentence; computing.js has the same limit
MOST_WEIGHTS = 5_000_000  # the page has about 21 MB, and computing a sentence takes some seconds

# Settings of a network that forward.js supports; all others must have their defaults.
KNOWN = frozenset(
    {"encoder_layers", "decoder_layers", "width", "feed_forward_width", "heads"}
    | {"norm", "share_embeddings", "activation", "output_bias", "decoder_start"}
    | {"dropout", "attention_dropout"}  # without effect after training
)
ACTIVATIONS = ("relu", "gelu", "silu")  # activations that tensors.js supports
READ_FROM_CONFIG = ("encoder_layers", "decoder_layers", "width", "heads", "norm", "activation")


def packed(translator: Translator) -> dict[str, Any]:
    """Return the packed translator, which loading.js reads.

    Raises:
        NotLiveError: the page does not support this model, or the model is too large.
    """
    model = translator.model
    _check(model)
    tokenizers = [packed_tokenizer(tokenizer) for tokenizer in translator.tokenizers]
    weights = {**_weights(model), "positions.angles": angles_per_position(model.config.width)}
    floats = np.concatenate([weight.cpu().float().numpy().ravel() for weight in weights.values()])
    vocabulary = model.vocabulary
    return {
        "config": {name: getattr(model.config, name) for name in READ_FROM_CONFIG},
        "decoding": translator.decoding.model_dump(),
        "vocabulary": {name: getattr(vocabulary, name) for name in ("pad_id", "bos_id", "eos_id")},
        "weights": [(name, list(weight.shape)) for name, weight in weights.items()],
        "floats": len(floats),
        "tokenizers": [one.described for one in tokenizers],
        **encoded(planes_of(floats) + b"".join(one.charsmap for one in tokenizers)),
    }


def planes_of(floats: "np.ndarray[Any, Any]") -> bytes:
    """Return the first bytes of all numbers, then all second bytes, and so on."""
    planes: bytes = floats.astype("<f4").view(np.uint8).reshape(-1, 4).T.tobytes()
    return planes


def encoded(plain: bytes) -> dict[str, Any]:
    """Return compressed bytes as text, and the number of compressed bytes."""
    data = zlib.compress(plain, level=9)
    padded = data + bytes(-len(data) % 4)
    text = base64.b85encode(padded).decode("ascii").replace("<", ",")
    return {"bytes": len(data), "data": text}


def _check(model: Transformer) -> None:
    count = sum(parameter.numel() for parameter in model.parameters())
    if count > MOST_WEIGHTS:
        raise NotLiveError(f"it has {count:,} weights, more than {MOST_WEIGHTS:,}")
    for name, field in ModelConfig.model_fields.items():
        value = getattr(model.config, name)
        known = name in KNOWN and (name != "activation" or value in ACTIVATIONS)
        if not known and name != "network" and value != field.default:
            raise NotLiveError(f"its model.{name} is {value}")


def _weights(model: Transformer) -> dict[str, Tensor]:
    """Return each weight once, by its name."""
    return {name: weight.detach() for name, weight in model.named_parameters()}
