"""The built-in tasks: a data side in numpy and a training side in torch for each.

    BUILT_IN_TASKS["tlm"] ──▶ .data      registered in `data_pipeline.batching.task.DATA_TASKS`
                          └─▶ .training  part of its kind in `trainer.task_kinds.TASKS`

Both sides are import paths, imported on first use. So a process that prepares or reads data does
not import torch. An extension registers its own task in both registries; see
docs/how-to/extending.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class TaskDescription:
    """Import paths of a task's two sides, as MODULE:NAME.

    Attributes:
        data: the side in numpy, a `data_pipeline.batching.task.DataTask`.
        training: the side in torch, a class of `trainer.tasks.task.TrainingTask`.
    """

    data: str
    training: str


BUILT_IN_TASKS: Mapping[str, TaskDescription] = MappingProxyType(
    {
        "translation": TaskDescription(
            data="data_pipeline.tasks.translation:TASK",
            training="trainer.tasks.translation:TranslationTask",
        ),
        "causal_lm": TaskDescription(
            data="data_pipeline.tasks.causal_lm:TASK",
            training="trainer.tasks.causal_lm:CausalLanguageModel",
        ),
        "sentence_embedding": TaskDescription(
            data="data_pipeline.tasks.sentence_embedding:TASK",
            training="trainer.tasks.sentence_embedding:SentenceEmbedding",
        ),
        "masked_lm": TaskDescription(
            data="data_pipeline.tasks.masked_lm:TASK",
            training="trainer.tasks.masked_lm:MaskedLanguageModelling",
        ),
        "text_classification": TaskDescription(
            data="data_pipeline.tasks.text_classification:TASK",
            training="trainer.tasks.labelling:TextClassification",
        ),
        "token_classification": TaskDescription(
            data="data_pipeline.tasks.token_classification:TASK",
            training="trainer.tasks.labelling:TokenClassification",
        ),
        "tlm": TaskDescription(
            data="data_pipeline.tasks.tlm:TASK",
            training="trainer.tasks.tlm:TranslationLanguageModelling",
        ),
    }
)

# Task of recipes and datasets that name no task. Never change this default, because the identities
# of such recipes and datasets depend on it.
DEFAULT_TASK = "translation"
