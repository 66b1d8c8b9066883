"""Recipes that fine-tune a BERT, GPT-2, Llama or sentence encoder, for `transloom init`.

    folder ──▶ task, network, tokenizer ─┐
    files ──▶ data ──────────────────────┴─▶ values of a recipe ──▶ YAML

`transloom.cli.model_sections` does this for Marian models.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.errors import RecipeError
from data_pipeline.config.corpus import name_suffix
from data_pipeline.config.embedding import BOS_TOKENS
from data_pipeline.config.label import LabelledDataConfig
from data_pipeline.config.pair import PairDataConfig
from data_pipeline.config.text import TextDataConfig
from data_pipeline.tokenizers.sentence_piece import SentencePieceTokenizer
from foundation.file_model import parse_object
from foundation.registry import resolved
from foundation.strict_yaml import dump_yaml
from foundation.tasks import BUILT_IN_TASKS, TASKS
from foundation.untrusted_text import visible_line
from foundation.wording import join_items
from trainer.start.model_folder import TOKENIZER, model_type, weights_files
from transloom.cli.recipe_scales import Scale

HELD_OUT_PART = 0.95  # the rest of a file of texts, after this share, is the validation set
MAX_CONTEXT = 1024  # limit for rotary positions, which have none; long rows need memory
PAIRS_PER_MICRO_BATCH = 32


@dataclass(frozen=True)
class TunedModel:
    """Model of a folder, from which a run of a task starts.

    Attributes:
        task: the task of its run.
        model: the recipe's section `model`.
        tokenizer: the recipe's section `tokenizer`.
        context_length: maximum tokens of a row.
        labels: labels of a classifier in their order.
    """

    folder: Path
    task: str
    model: Mapping[str, Any]
    tokenizer: Mapping[str, Any]
    context_length: int
    labels: tuple[str, ...] = ()


def tuned_model(folder: Path, *, of_pairs: bool) -> TunedModel:
    """Read the model of a folder.

    Args:
        of_pairs: whether the run trains on pairs of sentences. BERT's masked model supports both
            pairs and single texts.

    Raises:
        RecipeError: the folder has no SentencePiece model, or the model needs other files.
        ModelError, TokenizerError: the network or its tokenizer cannot be read.
    """
    from model.hugging_face.bert import read_bert  # imports torch
    from model.hugging_face.files import read_model
    from model.hugging_face.language_model import from_hugging_face

    if not (folder / TOKENIZER).is_file():
        raise RecipeError(
            f"{folder} has no {TOKENIZER}, so the network's tokenizer is not known. Copy the "
            f"network's SentencePiece model to {folder / TOKENIZER}. A network with another kind "
            "of tokenizer cannot be used"
        )
    weights_files(folder)
    tokenizer = SentencePieceTokenizer.load(folder / TOKENIZER)
    config, weights = read_model(folder)
    labels: tuple[str, ...] = ()
    if model_type(folder) == "bert":
        bert = read_bert(config, weights)
        name, labels = _network_of_bert(bert.weights), bert.labels
        section = bert.config.model_dump(mode="json", exclude={"network"}, exclude_none=True)
        vocabulary_size, context_length = bert.vocabulary_size, bert.context_length
    else:
        network = from_hugging_face(config, weights)
        name = "decoder_only"
        section = network.config.model_dump(mode="json", exclude={"network"}, exclude_none=True)
        vocabulary_size, context_length = network.vocabulary_size, network.context_length
        if network.config.positions != "learned":
            context_length = min(context_length, MAX_CONTEXT)
    if name == "sentence_encoder":
        section["pooling"] = _pooling(folder)
    task = _task_of(name, of_pairs=of_pairs)
    if _has_pairs(task) != of_pairs:
        files = "texts: --text FILE" if of_pairs else "pairs: --source FILE --target FILE"
        raise RecipeError(
            f"{folder} has a model of the task {task}, which trains on files of other kinds than "
            f"given. Name {files}"
        )
    if tokenizer.vocabulary_size != vocabulary_size:
        raise RecipeError(
            f"{folder / TOKENIZER} has {tokenizer.vocabulary_size:,} pieces"
            f"{f', with {join_items(tokenizer.added)} added' if tokenizer.added else ''}, but the "
            f"network has vectors of {vocabulary_size:,}. Use the network's own SentencePiece "
            "model, with padding, unknown, begin and end"
        )
    return TunedModel(
        folder,
        task,
        section,
        {
            "vocabulary_size": vocabulary_size,
            "model": str(folder / TOKENIZER),
            "model_sha256": hashlib.sha256(tokenizer.model).hexdigest(),
        },
        context_length,
        labels,
    )


def _network_of_bert(weights: Mapping[str, Any]) -> str:
    if "classifier.weight" in weights:
        return "label_texts" if "pooler.weight" in weights else "label_tokens"
    return "encoder_only" if "output_bias" in weights else "sentence_encoder"


def _task_of(network: str, *, of_pairs: bool) -> str:
    """Return a task with this network, preferably one that trains on pairs if `of_pairs`."""
    tasks = [name for name in BUILT_IN_TASKS if TASKS[name].network == network]
    return next((name for name in tasks if _has_pairs(name) == of_pairs), tasks[0])


def _has_pairs(task: str) -> bool:
    return issubclass(resolved(TASKS[task].data), PairDataConfig)


def _pooling(folder: Path) -> str:
    """Return the pooling of a model of sentence-transformers."""
    try:
        config = parse_object((folder / "1_Pooling" / "config.json").read_bytes())
    except (OSError, ValueError):
        return "mean"  # the default of sentence-transformers
    first = config.get("pooling_mode_cls_token") or config.get("pooling_mode") == "cls"
    return "first" if first else "mean"


def text_data(task: str, train: Path, validation: Path | None) -> dict[str, Any]:
    """Return the corpora of a recipe of texts; without a validation file, cut the training file."""
    held = {"part": [HELD_OUT_PART, 1.0]} if validation is None else {}
    part = {"part": [0.0, HELD_OUT_PART]} if validation is None else {}
    return {
        "train": [_text_corpus(task, train) | part],
        "validation": _text_corpus(task, validation or train) | held,
    }


def _text_corpus(task: str, path: Path) -> dict[str, Any]:
    suffix, data = name_suffix(path.name), resolved(TASKS[task].data)
    corpus: dict[str, Any] = {"files": [str(path).replace("{", "\\{").replace("}", "\\}")]}
    if data is LabelledDataConfig and suffix == ".tsv":
        corpus["columns"] = {"text": 0, "label": 1}
    elif data is TextDataConfig and suffix not in (".jsonl", ".tar", ".parquet"):
        corpus["format"] = "text"
    return corpus


def recipe_values(
    tuned: TunedModel, name: str, data: Mapping[str, Any], scale: Scale
) -> dict[str, Any]:
    """Return the values of a recipe that starts from the model of a folder."""
    data = {**data, "dataset": f"datasets/{name}"}
    context = tuned.context_length
    batching: dict[str, Any] = {"context_length": context}
    tokens = max(context, scale.micro_batch)
    if tuned.labels:
        data["labels"] = list(tuned.labels)
    if TASKS[tuned.task].network == "sentence_encoder":
        data["max_source_length"] = data["max_target_length"] = context - BOS_TOKENS
        batching["pairs_per_micro_batch"] = PAIRS_PER_MICRO_BATCH
        tokens = max(tokens, PAIRS_PER_MICRO_BATCH * context)
    elif _has_pairs(tuned.task):  # two sides, each with BOS
        data["max_source_length"] = data["max_target_length"] = context // 2 - 1
    return {
        "name": name,
        "seed": 1,
        "task": tuned.task,
        "data": data,
        "tokenizer": dict(tuned.tokenizer),
        "batching": batching
        | {"max_tokens_per_micro_batch": tokens, "micro_batches_per_step": scale.micro_batches},
        "model": dict(tuned.model),
        "trainer": {
            "init_from": str(tuned.folder),
            "max_steps": scale.steps,
            "schedule": {
                "type": "inverse_square_root",
                "warmup_steps": scale.warm_up,
                "peak_learning_rate": scale.rate,
            },
            "label_smoothing": 0.0,
            "gradient_clipping": 1.0,
            "validate_every_steps": scale.every,
        },
        "engine": {"zero_stage": 1, "precision": scale.precision},
        "checkpoints": {"every_steps": scale.every, "keep_last": 3},
        "cluster": {"ranks": scale.ranks, "cpus_per_rank": 1, "gpus_per_rank": scale.gpus},
    }


def recipe_text(values: Mapping[str, Any], path: str) -> str:
    """Return the recipe as YAML, with the commands to run in a comment."""
    lines = [
        f"# Fine-tuning of {values['trainer']['init_from']} for the task {values['task']}.",
        "#",
        *(f"#   transloom {command} {path}" for command in ("prepare", "plan", "train")),
        "#",
        "# `transloom fields SECTION` explains the fields of a section.",
        "# The section model must describe the folder's network; only dropout may change.",
    ]
    return "\n".join([*map(visible_line, lines), "", dump_yaml(dict(values))])
