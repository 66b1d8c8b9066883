"""Marian models in Hugging Face's layout, written by transformers with random weights."""

import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

# Settings of opus-mt models, with small widths.
SMALL = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 512,
}
# Values that are the same in all opus-mt models.
OPUS = {
    "activation_function": "swish",
    "scale_embedding": True,
    "static_position_embeddings": True,
    "normalize_before": False,
    "share_encoder_decoder_embeddings": True,
    "tie_word_embeddings": True,
    "dropout": 0.1,
}


def write_tokenizer(
    folder: Path,
    texts: tuple[Iterable[str], Iterable[str]],
    pieces: int = 300,
    tags: Sequence[str] = (),
    kind: str = "unigram",
) -> int:
    """Write source.spm, target.spm and vocab.json with opus-mt's ids; return the number of ids."""
    folder.mkdir(parents=True, exist_ok=True)
    known: dict[str, None] = {}
    for side, lines in zip(("source", "target"), texts, strict=True):
        model = io.BytesIO()
        SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            vocab_size=pieces,
            model_type=kind,
            hard_vocab_limit=False,
            num_threads=1,
            minloglevel=2,
        )
        (folder / f"{side}.spm").write_bytes(model.getvalue())
        processor = SentencePieceProcessor(model_proto=model.getvalue())
        known |= dict.fromkeys(map(processor.id_to_piece, range(3, len(processor))))
    vocabulary = ["</s>", "<unk>", *known, *tags, "<pad>"]
    ids = {piece: number for number, piece in enumerate(vocabulary)}
    (folder / "vocab.json").write_text(json.dumps(ids, ensure_ascii=False), encoding="utf-8")
    return len(ids)


def write_model(folder: Path, vocabulary_size: int, seed: int = 7, **form: Any) -> Any:
    """Write config.json and model.safetensors with random weights; return the model."""
    import torch
    from transformers import MarianConfig, MarianMTModel

    torch.manual_seed(seed)
    padding = vocabulary_size - 1
    special = {
        "vocab_size": vocabulary_size,
        "decoder_vocab_size": vocabulary_size,
        "pad_token_id": padding,
        "decoder_start_token_id": padding,
        "eos_token_id": 0,
        "forced_eos_token_id": 0,
        "bos_token_id": 0,
    }
    config = MarianConfig(**OPUS | SMALL | special | form)
    model = MarianMTModel(config).eval()
    for name, parameter in model.named_parameters():
        if "embed_positions" not in name and parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
        elif "embed_positions" not in name:
            torch.nn.init.normal_(parameter, mean=float("norm.weight" in name), std=0.1)
    torch.nn.init.normal_(model.final_logits_bias, std=0.3)
    model.save_pretrained(folder)
    return model
