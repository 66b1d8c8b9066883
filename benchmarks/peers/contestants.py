"""Contestants of peers.py, with their commands, settings, and records of steps."""

from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.corpus import RECIPE, Corpus, overrides_of
from benchmarks.support.contestants import ENDLESS, Script, Transloom
from benchmarks.support.environments import PEERS, environment_with

HERE = Path(__file__).resolve().parent
EOLE = ["torch==2.13.0", "eole==0.6.4", "aiohttp"]  # a requirement that Eole does not declare


@dataclass(frozen=True)
class Size:
    """Size of a network, and of its micro-batches."""

    layers: int  # layers of the encoder, and of the decoder
    width: int
    feed_forward_width: int
    heads: int
    dropout: float
    tokens_per_micro_batch: int  # maximum number of sentences times the longest one's tokens


SIZES = {
    "tiny": Size(4, 128, 256, 4, 0.3, 2500),
    "base": Size(6, 512, 2048, 8, 0.1, 1000),
}


def transloom(corpus: Corpus, size: Size, precision: str, threads: int) -> Transloom:
    """`transloom train`; dropout, schedule and loss are the recipe's."""
    overrides = [
        *overrides_of(corpus.data, corpus.dataset),
        f"batching.max_tokens_per_micro_batch={size.tokens_per_micro_batch}",
        "batching.micro_batches_per_step=1",
        f"model.encoder_layers={size.layers}",
        f"model.decoder_layers={size.layers}",
        f"model.width={size.width}",
        f"model.feed_forward_width={size.feed_forward_width}",
        f"model.heads={size.heads}",
        f"model.dropout={size.dropout}",
        f"engine.precision={precision}",
    ]
    return Transloom(RECIPE, threads, overrides, inline=False)


class Eole(Script):
    """`eole train`; pre-norm, like Eole's Transformers."""

    settings_file = "config.yaml"  # JSON is valid YAML

    def __init__(self, corpus: Corpus, size: Size, mode: str, threads: int, python: Path) -> None:
        settings = {
            "seed": 1,
            "share_vocab": True,
            "pad_token": corpus.pad,
            "src_vocab": str(corpus.vocabulary),
            "src_vocab_size": corpus.vocabulary_size,
            "tgt_vocab_size": corpus.vocabulary_size,
            "report_every": 100,
            "data": {
                "multi30k": {
                    "path_src": str(corpus.pieces["src"]),
                    "path_tgt": str(corpus.pieces["tgt"]),
                }
            },
            "training": {
                "model_path": "model",
                "batch_type": "tokens",
                "batch_size": size.tokens_per_micro_batch,
                "normalization": "tokens",
                "compute_dtype": "fp32" if mode == "fp32" else "bf16",
                "use_amp": mode == "amp",
                "optim": "adam",
                "adam_beta2": 0.98,
                "learning_rate": 2.0,
                "decay_method": "noam",
                "warmup_steps": 2000,
                "max_grad_norm": 0.0,
                "label_smoothing": 0.1,
                "dropout": [size.dropout],
                "attention_dropout": [0.0],
                "param_init_method": "xavier_uniform",
                "log_attention_entropy": False,
                "train_steps": ENDLESS,
                "valid_steps": ENDLESS,
                "save_checkpoint_steps": ENDLESS,
            },
            "model": {
                "architecture": "transformer",
                "layers": size.layers,
                "hidden_size": size.width,
                "heads": size.heads,
                "transformer_ff": size.feed_forward_width,
                "add_qkvbias": True,
                "add_final_linear_bias": True,
                "add_ffnbias": True,
                "generator_bias": False,
                "share_embeddings": True,
                "share_decoder_embeddings": True,
                "embeddings": {
                    "word_vec_size": size.width,
                    "position_encoding": True,
                    "position_encoding_type": "SinusoidalInterleaved",
                },
            },
        }
        super().__init__(HERE / "train_eole.py", settings, threads, python)

    @staticmethod
    def python(torch_index: str | None) -> Path:
        return environment_with(EOLE, PEERS / "eole", torch_index, constraints=None)


class HuggingFace(Script):
    """Seq2SeqTrainer; its batches have equal numbers of sentences, with the same mean tokens."""

    def __init__(
        self, corpus: Corpus, size: Size, precision: str, threads: int, python: Path
    ) -> None:
        sides = ("encoder", "decoder")
        settings = {
            "ids": str(corpus.ids),
            "model": {
                "vocab_size": corpus.vocabulary_size,
                "d_model": size.width,
                **{f"{side}_layers": size.layers for side in sides},
                **{f"{side}_ffn_dim": size.feed_forward_width for side in sides},
                **{f"{side}_attention_heads": size.heads for side in sides},
                "dropout": size.dropout,
                "activation_function": "relu",
                "scale_embedding": True,
                "max_position_embeddings": 256,
                "pad_token_id": corpus.special["pad"],
                "eos_token_id": corpus.special["eos"],
                "forced_eos_token_id": corpus.special["eos"],
                "decoder_start_token_id": corpus.special["bos"],
            },
            "training": {
                "output_dir": "output",
                "max_steps": ENDLESS,
                "per_device_train_batch_size": int(
                    size.tokens_per_micro_batch / corpus.longest_mean
                ),
                "train_sampling_strategy": "group_by_length",
                "learning_rate": 0.001,
                "lr_scheduler_type": "inverse_sqrt",
                "warmup_steps": 2000,
                "adam_beta2": 0.98,
                "max_grad_norm": 0.0,
                "label_smoothing_factor": 0.1,
                "bf16": precision == "bf16",
                "use_cpu": True,
                "logging_steps": 100,
                "save_strategy": "no",
                "report_to": "none",
                "disable_tqdm": True,
                "remove_unused_columns": False,
            },
        }
        super().__init__(HERE / "hugging_face.py", settings, threads, python)
