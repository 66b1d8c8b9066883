"""Registry of tasks: a description of each task, whose parts the packages import when needed.

    TASKS["tlm"] ──▶ .data_task                the side in numpy, also in `DATA_TASKS`
                 ├─▶ .training                 the side in torch
                 ├─▶ .data, .tokenizer, …      the classes of its sections in a recipe
                 └─▶ .command, .page, …        the commands and views of its trained runs

The parts of a built-in task are in packages above this one, so the description has their import
paths. A process imports a part when it uses it: data workers and drivers do not import torch. An
extension registers its own task in the same way; see docs/how-to/extending.md.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from foundation.registry import Registry

if TYPE_CHECKING:
    from foundation.section import Section


def _accept(recipe: Any) -> None:
    """Accept every recipe."""


@dataclass(frozen=True)
class TaskKind:
    """Description of a task.

    Classes, functions and objects are given directly, or as MODULE:NAME, which is imported on first
    use.

    Attributes:
        data: the class of the section `data`.
        tokenizer: the class of the section `tokenizer`.
        batching: the class of the section `batching`.
        network: the name of the task's default network.
        scores: for each score of the task's validation, by name, whether a greater value is better.
            By default, the first score determines the best checkpoint.
        training: the task's torch side, as MODULE:CLASS; see `trainer.tasks.task`.
        data_task: the task's numpy side; see `data_pipeline.batching.task`. None if `DATA_TASKS`
            has it.
        decoding: the class of the section `decoding`.
        makes_texts: whether a validation generates a text for each example, which can be scored.
        probes: whether the torch side implements `probe` for the default network.
        repeats: whether the rows of a micro-batch can be repeated within a pass, as
            `trainer.r_drop` requires.
        loss_unit: the unit over which the loss is averaged, for axes of charts.
        predicts: description of the network's result for a text, for messages.
        check: raises ValueError if sections of a recipe contradict each other.
        command: the subcommand of transloom that uses trained runs of the task, or None.
        placeholder: placeholder of the command's input in suggested commands.
        page: the page of `transloom explain` for runs of the task, or None.
        exporters: the function that writes a run for a library, as MODULE:FUNCTION, by the value of
            `transloom export --to`. A leading dot stands for the package of the built-in functions.
    """

    data: "type[Section] | str"
    tokenizer: "type[Section] | str"
    batching: "type[Section] | str"
    network: str
    scores: Mapping[str, bool]
    training: str
    data_task: Any = None
    decoding: "type[Section] | str" = "foundation.section:Section"
    makes_texts: bool = False
    probes: bool = False
    repeats: bool = False
    loss_unit: str = "unit"
    predicts: str = "something else"
    check: Callable[[Any], None] | str = _accept
    command: str | None = None
    placeholder: str = "A TEXT"
    page: str | None = None
    exporters: Mapping[str, str] = field(default_factory=dict)


class TaskRegistry(Registry[TaskKind]):
    """Tasks by name. The numpy side of each is in `DATA_TASKS`, too."""

    def register(self, name: str, entry: TaskKind | str) -> None:
        super().register(name, entry)
        if isinstance(entry, TaskKind) and entry.data_task is not None:
            DATA_TASKS.register(name, entry.data_task)


# `data_pipeline.batching.task` has its type. An extension may register only a numpy side.
DATA_TASKS = Registry[Any]("task", "task")
TASKS = TaskRegistry("task", "task")

_MASKED_LM_SCORES = {"loss": False, "perplexity": False, "accuracy": True}
_LABEL_SCORES = {"loss": False, "accuracy": True, "macro_f1": True}

for name, kind in {
    "translation": TaskKind(
        data="data_pipeline.config.pair:TranslationDataConfig",
        tokenizer="data_pipeline.config.data:TokenizerConfig",
        batching="data_pipeline.config.data:BatchingConfig",
        decoding="model.config.transformer:DecodingConfig",
        network="transformer",
        scores={"loss": False, "perplexity": False, "bleu": True},
        data_task="data_pipeline.tasks.translation:TASK",
        training="trainer.tasks.translation:TranslationTask",
        makes_texts=True,
        probes=True,
        repeats=True,
        loss_unit="target token",
        predicts="the pieces of a translation",
        check="trainer.task_kinds:require_joint_vocabulary_to_share",
        command="translate",
        page="translation",
        exporters={
            "huggingface": ".hugging_face:write_marian",
            "ctranslate2": ".ctranslate2:write_ctranslate2",
        },
    ),
    "causal_lm": TaskKind(
        data="data_pipeline.config.text:TextDataConfig",
        tokenizer="data_pipeline.config.text:TextTokenizerConfig",
        batching="data_pipeline.config.data:PackedBatchingConfig",
        decoding="model.config.decoder_only:SamplingConfig",
        network="decoder_only",
        scores={"loss": False, "perplexity": False, "byte_perplexity": False},
        data_task="data_pipeline.tasks.causal_lm:TASK",
        training="trainer.tasks.causal_lm:CausalLanguageModel",
        loss_unit="token",
        predicts="the next piece of a text",
        command="generate",
        page="continuation",
        exporters={"huggingface": ".hugging_face:write_language_model"},
    ),
    "sentence_embedding": TaskKind(
        data="data_pipeline.config.pair:PairDataConfig",
        tokenizer="data_pipeline.config.data:TokenizerConfig",
        batching="data_pipeline.config.embedding:EmbeddingBatchingConfig",
        network="sentence_encoder",
        scores={"loss": False, "retrieval_accuracy": True},
        data_task="data_pipeline.tasks.sentence_embedding:TASK",
        training="trainer.tasks.sentence_embedding:SentenceEmbedding",
        loss_unit="sentence pair",
        predicts="one vector for the whole text",
        check="data_pipeline.config.embedding:check_recipe",
        command="embed",
        exporters={"huggingface": ".hugging_face:write_sentence_transformer"},
    ),
    "masked_lm": TaskKind(
        data="data_pipeline.config.text:TextDataConfig",
        tokenizer="data_pipeline.config.text:TextTokenizerConfig",
        batching="data_pipeline.config.masking:MaskedBatchingConfig",
        decoding="model.config.encoder_only:FillConfig",
        network="encoder_only",
        scores=_MASKED_LM_SCORES,
        data_task="data_pipeline.tasks.masked_lm:TASK",
        training="trainer.tasks.masked_lm:MaskedLanguageModelling",
        loss_unit="masked token",
        predicts="the masked pieces of a text",
        command="fill",
        placeholder="A TEXT WITH A [MASK]",
        page="filling",
        exporters={"huggingface": ".hugging_face:write_bert"},
    ),
    "text_classification": TaskKind(
        data="data_pipeline.config.label:LabelledDataConfig",
        tokenizer="data_pipeline.config.text:TextTokenizerConfig",
        batching="data_pipeline.config.data:PackedBatchingConfig",
        network="label_texts",
        scores=_LABEL_SCORES,
        data_task="data_pipeline.tasks.labelled:TEXT_CLASSIFICATION",
        training="trainer.tasks.labelling:Labelling",
        loss_unit="text",
        predicts="a label of the whole text",
        check="trainer.task_kinds:require_label_head",
        command="classify",
        exporters={"huggingface": ".hugging_face:write_bert_labels"},
    ),
    "token_classification": TaskKind(
        data="data_pipeline.config.label:TaggedDataConfig",
        tokenizer="data_pipeline.config.text:TextTokenizerConfig",
        batching="data_pipeline.config.data:PackedBatchingConfig",
        network="label_tokens",
        scores={**_LABEL_SCORES, "span_f1": True},
        data_task="data_pipeline.tasks.labelled:TOKEN_CLASSIFICATION",
        training="trainer.tasks.labelling:Labelling",
        loss_unit="word",
        predicts="a label of each word",
        check="trainer.task_kinds:require_spans_for_their_score",
        command="classify",
        exporters={"huggingface": ".hugging_face:write_bert_labels"},
    ),
    "tlm": TaskKind(
        data="data_pipeline.config.pair:PairDataConfig",
        tokenizer="data_pipeline.config.data:TokenizerConfig",
        batching="data_pipeline.config.masking:PairMaskedBatchingConfig",
        decoding="model.config.encoder_only:FillConfig",
        network="encoder_only",
        scores={**_MASKED_LM_SCORES, "alone_loss": False},
        data_task="data_pipeline.tasks.masked_lm:TLM",
        training="trainer.tasks.tlm:TranslationLanguageModelling",
        loss_unit="masked token",
        predicts="the masked pieces of a sentence pair",
        check="trainer.task_kinds:require_segments_of_pairs",
        command="fill",
        placeholder="A TEXT WITH A [MASK] ||| ITS OTHER SIDE",
        page="filling",
        exporters={"huggingface": ".hugging_face:write_bert_of_pairs"},
    ),
}.items():
    TASKS.register(name, kind)
BUILT_IN_TASKS = tuple(TASKS)

# Task of recipes and datasets that name no task. Never change this default, because the identities
# of such recipes and datasets depend on it.
DEFAULT_TASK = "translation"


def tasks_of_command(command: str) -> list[str]:
    """Return the tasks whose trained runs a subcommand of transloom uses."""
    return [name for name in TASKS if TASKS[name].command == command]
