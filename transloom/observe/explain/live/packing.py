"""Pack a model for a page: all weights in fp32, config and tokenizers, as one JSON object.

    weights ─▶ little-endian float32 ─▶ first bytes, second bytes, … ─┐
    normalisers' tables ──────────────────────────────────────────────┴▶ deflate ─▶ base 85

The exponents of weights are similar, and compress better if their bytes are adjacent. Base 85
writes four bytes as five characters (RFC 1924), with a comma instead of "<", which has a meaning in
HTML.
"""

import base64
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from sentencepiece.sentencepiece_model_pb2 import ModelProto, TrainerSpec
from torch import Tensor

from data_pipeline.tasks.masking import vocabulary_of
from data_pipeline.tokenizers.sentence_piece import VERBATIM, SentencePieceTokenizer
from data_pipeline.tokenizers.tokenizer import Tokenizer
from model.blocks.positions import angles_per_position
from model.blocks.rotary import rotary_table
from model.config.encoder_only import EncoderOnlyConfig
from model.config.layers import LayersConfig
from model.generation.sampling import uniform_numbers
from run_store.errors import RunError
from transloom.inference.mask_filler import MaskFiller
from transloom.inference.text_generator import TextGenerator
from transloom.inference.translator import Translator
from transloom.observe.explain import limits

MOST_PIECES = 128  # maximum pieces of a sentence; computing.js has the same limit
MOST_WEIGHTS = 5_000_000  # a page with these has 21 MB, and needs some seconds for a sentence
SEEDS = 32  # number of seeds for which a page contains the random numbers of sampling


class NotLiveError(RunError):
    """Error of a model that cannot run in a page; its message is the reason, without a period."""


_TYPES = {TrainerSpec.BPE: "bpe", TrainerSpec.UNIGRAM: "unigram", TrainerSpec.CHAR: "char"}
_KINDS = ModelProto.SentencePiece
# Letters for the kinds of pieces.
_LETTERS = {
    _KINDS.NORMAL: "n",
    _KINDS.UNKNOWN: "u",
    _KINDS.CONTROL: "c",
    _KINDS.USER_DEFINED: "d",
    _KINDS.UNUSED: "x",
    _KINDS.BYTE: "b",
}


def packed_tokenizer(tokenizer: Tokenizer) -> tuple[dict[str, Any], bytes]:
    """Return the description of a tokenizer for pieces.js, and the table of its normaliser.

    Raises:
        NotLiveError: pieces.js does not support this tokenizer.
    """
    if not isinstance(tokenizer, SentencePieceTokenizer):
        raise NotLiveError(
            f"{tokenizer.name} is a tokenizer of the kind {tokenizer.kind}, which a page does not "
            "support"
        )
    model = tokenizer.proto()
    trainer, normaliser = model.trainer_spec, model.normalizer_spec
    if trainer.model_type not in _TYPES:
        kind = TrainerSpec.ModelType.Name(trainer.model_type).lower()
        raise NotLiveError(
            f"{tokenizer.name} is a SentencePiece model of the type {kind}, which a page does not "
            "support"
        )
    if model.denormalizer_spec.precompiled_charsmap:
        raise NotLiveError(
            f"{tokenizer.name} has rules that change its output, which a page does not support"
        )
    charsmap: bytes = normaliser.precompiled_charsmap
    described = {
        "type": _TYPES[trainer.model_type],
        "pieces": [piece.piece for piece in model.pieces],
        # Nine significant digits identify each float32.
        "scores": [float(f"{piece.score:.9g}") for piece in model.pieces],
        "types": "".join(_LETTERS[piece.type] for piece in model.pieces),
        "unk_id": tokenizer.unk_id,
        "unknown_text": trainer.unk_surface if trainer.HasField("unk_surface") else None,
        "verbatim": VERBATIM in trainer.accept_language,
        "normaliser": {
            "dummy_prefix": normaliser.add_dummy_prefix,
            "extra_spaces": not normaliser.remove_extra_whitespaces,
            "escape_spaces": normaliser.escape_whitespaces,
            "space_as_suffix": trainer.treat_whitespace_as_suffix,
        },
        "charsmap_bytes": len(charsmap),
    }
    return described, charsmap


def packed(translator: Translator) -> dict[str, Any]:
    """Return the packed translator, which loading.js reads.

    Raises:
        NotLiveError: the page does not support its tokenizers, or the model is too large.
    """
    model = translator.model
    layers = {name: getattr(model.config, name) for name in ("encoder_layers", "decoder_layers")}
    vocabulary = model.vocabulary
    return {
        "decoding": translator.decoding.model_dump(),
        "vocabulary": {name: getattr(vocabulary, name) for name in ("pad_id", "bos_id", "eos_id")},
        **_packed(dict(model.named_parameters()), model.config, layers, translator.tokenizers),
    }


def packed_generator(generator: TextGenerator) -> dict[str, Any]:
    """Return the packed language model, with the random numbers of `generate` for some seeds.

    Raises:
        NotLiveError: as in `packed`.
    """
    network, sampling = generator.network, generator.sampling
    names = {"embedding": "target_embedding", "layers": "decoder.layers"}
    seeds = sorted({*range(SEEDS), sampling.seed})
    return {
        "family": "continuation",
        "steps": limits.MAX_STEPS,
        "context": network.context_length,
        "decoding": sampling.model_dump(include={"temperature", "top_k", "top_p", "seed"}),
        "draws": {seed: uniform_numbers(seed, 0, limits.MAX_STEPS) for seed in seeds},
        **_packed_text(generator, network, {**names, "last_norm": "decoder.last_norm"}, "decoder"),
    }


def packed_filler(filler: MaskFiller) -> dict[str, Any]:
    """Return the packed masked model.

    Raises:
        NotLiveError: as in `packed`.
    """
    network, vocabulary = filler.network, vocabulary_of(filler.tokenizer)
    names = {"embedding": "target_embedding", "positions": "positions", "segments": "segments"}
    moved = {f"encoder.{name}": new for name, new in names.items()}
    return {
        "family": "filling",
        "context": network.encoder.context_length,
        "takes_pairs": filler.pairs,
        "mask": vocabulary.mask,
        "special": np.flatnonzero(~vocabulary.is_ordinary).tolist(),
        **_packed_text(filler, network, moved, "encoder"),
    }


def _packed_text(
    reader: TextGenerator | MaskFiller, network: Any, names: Mapping[str, str], stack: str
) -> dict[str, Any]:
    """Return the packed data that a page needs of any network with one stack.

    Args:
        names: prefixes of parameter names, each with the prefix that forward.js expects instead.
    """
    config = getattr(network, "config", None) or network.encoder.config
    weights = {}
    for name, weight in network.named_parameters():
        old = next((old for old in names if name.startswith(f"{old}.")), "")
        weights[names[old] + name.removeprefix(old) if old else name] = weight
    tokenizer = reader.tokenizer
    return {
        "vocabulary": {
            f"{name}_id": getattr(tokenizer.special_ids, name) for name in ("pad", "bos", "eos")
        },
        **_packed(weights, config, {"stack": stack, f"{stack}_layers": config.layers}, [tokenizer]),
    }


def _packed(
    parameters: Mapping[str, Tensor],
    config: LayersConfig,
    layers: Mapping[str, Any],
    tokenizers: Iterable[Tokenizer],
) -> dict[str, Any]:
    count = sum(weight.numel() for weight in parameters.values())
    if count > MOST_WEIGHTS:
        raise NotLiveError(f"it has {count:,} weights, more than {MOST_WEIGHTS:,}")
    weights = {name: weight.detach() for name, weight in parameters.items()}
    positions = "learned"
    if not isinstance(config, EncoderOnlyConfig):
        positions = config.positions
        if positions == "sinusoidal":
            weights["positions.angles"] = angles_per_position(config.width)
        elif positions == "rotary":
            table = rotary_table(2, config.head_width, config.rotary_base, torch.device("cpu"))
            weights["positions.angles"] = table[1]
    floats = np.concatenate([weight.cpu().float().numpy().ravel() for weight in weights.values()])
    pieces = [packed_tokenizer(tokenizer) for tokenizer in tokenizers]
    sizes = ("width", "heads", "groups", "activation", "norm_kind")
    return {
        "config": {
            **layers,
            **{name: getattr(config, name) for name in sizes},
            "norm": "pre" if config.pre_norm else "post",
            "norm_epsilon": config.norm_epsilon,
            "positions": positions,
        },
        "weights": [(name, list(weight.shape)) for name, weight in weights.items()],
        "floats": len(floats),
        "tokenizers": [described for described, _ in pieces],
        **encoded(planes_of(floats) + b"".join(charsmap for _, charsmap in pieces)),
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
