"""Classification of texts: one label per text, predicted at BOS.

BOS takes the role of BERT's [CLS] (Devlin et al. 2019, §3). If a text is longer than the context,
the network reads only its beginning.
"""

from collections.abc import Mapping

import numpy as np

from data_pipeline.arrays import FieldArrays, Int32Array
from data_pipeline.config.label import LABEL
from data_pipeline.config.text import TEXT
from data_pipeline.dataset.manifest_header import FieldInfo
from data_pipeline.tasks.labelled import LabelledData, numbers_of
from data_pipeline.tasks.masking import IGNORE_INDEX, LABELS_FIELD
from data_pipeline.tokenizers.tokenizer import Tokenizer


class TextClassificationData(LabelledData):
    """Data side of text classification, in numpy; a text's label is stored as one number."""

    labels = LABEL

    def encode(
        self, field: FieldInfo, tokenizer: Tokenizer, texts: list[str], tag: str | None
    ) -> FieldArrays:
        if field.name != LABEL:
            return super().encode(field, tokenizer, texts, tag)
        numbers = numbers_of(field)
        found = np.fromiter((numbers[text] for text in texts), np.int32, len(texts))
        return FieldArrays(found, np.ones(len(texts), dtype=np.int32))

    def label_fields(self, fields: Mapping[str, FieldArrays]) -> dict[str, FieldArrays]:
        text = fields[TEXT]
        label_ids = np.full(len(text.ids), IGNORE_INDEX, dtype=np.int32)
        firsts = np.cumsum(text.lengths, dtype=np.int64) - text.lengths
        label_ids[firsts] = fields[LABEL].ids.astype(np.int32) - np.int32(1)
        return {TEXT: text, LABELS_FIELD: FieldArrays(label_ids, text.lengths)}

    def planned_lengths(self, lengths: Int32Array, context_length: int) -> Int32Array:
        return np.minimum(lengths, np.int32(context_length))


TASK = TextClassificationData()
