"""Contestants of language_model.py, with their commands and settings."""

from pathlib import Path

from benchmarks.support.contestants import ENDLESS, Script, hugging_face_training
from benchmarks.support.environments import hugging_face_python
from benchmarks.support.packed_text import PackedText
from model.config.decoder_only import DecoderOnlyConfig

HERE = Path(__file__).resolve().parent
RECIPE = "shakespeare-char"


def model_of(text: PackedText) -> DecoderOnlyConfig:
    assert isinstance(text.recipe.model, DecoderOnlyConfig)
    return text.recipe.model


def plain_loop(text: PackedText, threads: int) -> Script:
    trainer, model = text.recipe.trainer, model_of(text)
    settings = {
        "threads": threads,
        "ids": str(text.ids),
        "vocabulary": text.tokenizer.vocabulary_size,
        "layers": model.layers,
        "width": model.width,
        "heads": model.heads,
        "context": text.context,
        "rows": text.rows,
        "steps": ENDLESS,
        "betas": trainer.optimizer.betas,
        "epsilon": trainer.optimizer.epsilon,
        "weight_decay": trainer.optimizer.weight_decay,
        "clipping": trainer.gradient_clipping,
        "peak_rate": trainer.schedule.peak_learning_rate,
        "final_rate": trainer.schedule.final_learning_rate,
        "warmup_steps": trainer.schedule.warmup_steps,
        "decay_until_step": trainer.schedule.decay_until_step,
    }
    return Script(HERE / "plain_loop.py", settings, threads)


def hugging_face(text: PackedText, threads: int, torch_index: str | None) -> Script:
    model = model_of(text)
    settings = {
        "threads": threads,
        "ids": str(text.ids),
        "context": text.context,
        "model": {
            "vocab_size": text.tokenizer.vocabulary_size,
            "n_layer": model.layers,
            "n_embd": model.width,
            "n_head": model.heads,
            "n_positions": text.context,
            "activation_function": "gelu_pytorch_tanh",
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
            "bos_token_id": None,
            "eos_token_id": None,
        },
        "training": hugging_face_training(text.recipe, text.rows),
    }
    return Script(HERE / "hugging_face.py", settings, threads, hugging_face_python(torch_index))
