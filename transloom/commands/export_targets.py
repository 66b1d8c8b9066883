"""The libraries that a run can be exported to, and what writes a run of each task for them.

Nothing of them is imported here: a target's library may be missing.
"""

from collections.abc import Mapping
from enum import StrEnum


class Target(StrEnum):
    """A library."""

    HUGGINGFACE = "huggingface"
    CTRANSLATE2 = "ctranslate2"


# MODULE:NAME of a `transloom.commands.exporting.Write`, for each task.
WRITERS: Mapping[Target, Mapping[str, str]] = {
    Target.HUGGINGFACE: {
        "causal_lm": "transloom.inference.export.language_model:write_language_model",
        "sentence_embedding": (
            "transloom.inference.export.sentence_transformers:write_sentence_transformer"
        ),
        "masked_lm": "transloom.inference.export.bert:write_bert",
        "text_classification": "transloom.inference.export.bert_labels:write_bert_labels",
        "token_classification": "transloom.inference.export.bert_labels:write_bert_labels",
        "tlm": "transloom.inference.export.bert:write_bert_of_pairs",
        "translation": "transloom.inference.export.marian:write_marian",
    },
    Target.CTRANSLATE2: {
        "translation": "transloom.inference.export.ctranslate2:write_ctranslate2",
    },
}
