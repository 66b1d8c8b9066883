"""Common base of text classification and word classification.

A text is stored as BOS, its tokens, EOS, as for a masked language model. Its labels are stored in a
separate field, as numbers from 1. A micro-batch has the tokens in TEXT and a target for each token
in LABELS_FIELD: a label's number from 0, or IGNORE_INDEX. Labels thus replace the hidden tokens of
a masked language model, and everything else works in the same way. No text that fits into a row is
cut.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from data_pipeline.arrays import FieldArrays
from data_pipeline.batching.batch import MicroBatch
from data_pipeline.batching.task import Examples, HeldOut
from data_pipeline.config.data import DataConfig, DataSettings
from data_pipeline.config.label import LabelsDataConfig
from data_pipeline.config.text import TEXT
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.dataset.manifest_header import FieldInfo, SpecialIds
from data_pipeline.errors import BatchingError
from data_pipeline.tasks.causal_lm import RowsShape
from data_pipeline.tasks.masked_lm import MaskedLanguageModelData
from data_pipeline.tasks.masking import IGNORE_INDEX, LABELS_FIELD
from data_pipeline.tokenizers.tokenizer import Tokenizer
from foundation.wording import counted, join_items


class LabelledData(MaskedLanguageModelData):
    """Data side of classification, in numpy; the torch side is in `trainer.tasks.labelling`.

    Attributes:
        labels: the name of the field of labels, which is also its role.
    """

    labels: str
    fills = False

    @abstractmethod
    def label_fields(self, fields: Mapping[str, FieldArrays]) -> dict[str, FieldArrays]:
        """Return a micro-batch's TEXT and LABELS_FIELD, made from the stored fields."""

    def fields(self, data: DataConfig) -> tuple[FieldInfo, ...]:
        assert isinstance(data, LabelsDataConfig)
        labels = FieldInfo(
            name=self.labels, role=self.labels, language=data.language, labels=data.labels
        )
        return (*super().fields(data), labels)

    def own_pieces(self) -> tuple[str, ...]:
        return ()

    def fewest_tokens(self, field: FieldInfo, tag: str | None) -> int | None:
        return super().fewest_tokens(field, tag) if field.name == TEXT else None

    def check(self, manifest: Manifest, settings: DataSettings) -> None:
        (found,) = (field.labels for field in manifest.fields if field.name == self.labels)
        data = settings.data
        assert isinstance(data, LabelsDataConfig)
        if found != data.labels:
            raise BatchingError(
                f"The dataset has the labels {join_items(found)}, but data.labels has "
                f"{join_items(data.labels)}. Prepare the dataset again, or correct data.labels."
            )

    def realise(
        self, examples: Examples, settings: DataSettings, tokenizers: Mapping[str, Tokenizer]
    ) -> dict[str, FieldArrays]:
        return self.label_fields(examples.fields)

    def heldout_fields(
        self, heldout: HeldOut, tokenizers: Mapping[str, Tokenizer], settings: DataSettings
    ) -> dict[str, FieldArrays]:
        """Return TEXT and LABELS_FIELD of a held-out set, in the order of its examples.

        Raises:
            BatchingError: no token of the set has a label.
        """
        fields = self.fields(settings.data)
        found = self.label_fields(self.encode_all(fields, tokenizers, heldout.texts, heldout.tags))
        if (found[LABELS_FIELD].ids == IGNORE_INDEX).all():
            raise BatchingError(
                f"A held-out set of {counted(len(heldout), 'text')} has no words, so no label can "
                "be scored. Give texts with words, and prepare again."
            )
        return found

    def synthetic(self, shape: RowsShape, special: SpecialIds) -> MicroBatch:
        """Return a micro-batch in which every token has a label, the worst case for memory."""
        batch = super().synthetic(shape, special)
        text = batch.fields[TEXT]
        label_ids = FieldArrays(np.zeros_like(text.ids), text.lengths)
        return replace(batch, fields={TEXT: text, LABELS_FIELD: label_ids})


def numbers_of(field: FieldInfo) -> dict[str, int]:
    """Return the numbers, from 1, by which a field's labels are stored in shards."""
    return {label: number for number, label in enumerate(field.labels, start=1)}
