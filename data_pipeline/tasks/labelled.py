"""Text classification, with one label per text, and tagging, with one label per word.

A text is stored as BOS, its tokens, EOS, as for a masked language model. Its labels are stored in a
separate field, as numbers from 1. A micro-batch has the tokens in TEXT and a target for each token
in LABELS_FIELD: a label's number from 0, or IGNORE_INDEX. Labels thus replace the hidden tokens of
a masked language model, and everything else works in the same way. No text that fits into a row is
cut.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np

from data_pipeline.arrays import FieldArrays, Int32Array, flattened
from data_pipeline.batching.batch import MicroBatch
from data_pipeline.batching.task import Examples, HeldOut
from data_pipeline.config.data import DataConfig, DataSettings
from data_pipeline.config.label import LABEL, TAGS, LabelsDataConfig
from data_pipeline.config.text import TEXT
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.dataset.manifest_header import FieldInfo, SpecialIds
from data_pipeline.errors import BatchingError
from data_pipeline.tasks.causal_lm import RowsShape
from data_pipeline.tasks.masked_lm import MaskedLanguageModelData
from data_pipeline.tasks.masking import IGNORE_INDEX, LABELS_FIELD
from data_pipeline.tokenizers.tokenizer import Tokenizer
from foundation.wording import counted, join_items

_NO_TAG = 0


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
    """Return the number, from 1, that represents each label of a field in shards."""
    return {label: number for number, label in enumerate(field.labels, start=1)}


class TextClassificationData(LabelledData):
    """Data side of text classification, in numpy; a text's label is stored as one number.

    The label is predicted at BOS, which takes the role of BERT's [CLS] (Devlin et al. 2019, §3). If
    a text is longer than the context, the network reads only its beginning.
    """

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


class TokenClassificationData(LabelledData):
    """Data side of tagging, in numpy; a tag is stored as a number for each token, 0 for no tag.

    A word's label is predicted at its first piece (Devlin et al. 2019, §5.3). Each word is encoded
    separately, with the space before it. For any tokenizer, a piece then belongs to exactly one
    word. If no piece of the tokenizer crosses a space, as in models that are trained here, the ids
    equal those of the whole text.
    """

    labels = TAGS

    def encode_all(
        self,
        fields: Sequence[FieldInfo],
        tokenizers: Mapping[str, Tokenizer],
        texts: Mapping[str, list[str]],
        tags: Mapping[str, str],
    ) -> dict[str, FieldArrays]:
        tokenizer = tokenizers[TEXT]
        (numbers,) = (numbers_of(field) for field in fields if field.name == TAGS)
        sentences = encode_words(tokenizer, [words_of(text) for text in texts[TEXT]])
        ids, found = [], []
        for words, text in zip(sentences, texts[TAGS], strict=True):
            ids.append([tokenizer.bos_id, *chain.from_iterable(words), tokenizer.eos_id])
            of_words = [
                [numbers[tag], *[_NO_TAG] * (len(pieces) - 1)]
                for pieces, tag in zip(words, words_of(text), strict=True)
            ]
            found.append([_NO_TAG, *chain.from_iterable(of_words), _NO_TAG])
        return {TEXT: flattened(ids), TAGS: flattened(found)}

    def label_fields(self, fields: Mapping[str, FieldArrays]) -> dict[str, FieldArrays]:
        label_ids = fields[TAGS].ids.astype(np.int32) - np.int32(1)
        return {TEXT: fields[TEXT], LABELS_FIELD: FieldArrays(label_ids, fields[TAGS].lengths)}


def words_of(text: str) -> list[str]:
    """Split a stored text, or its stored tags, at single spaces."""
    return text.split(" ") if text else []


def encode_words(tokenizer: Tokenizer, sentences: Sequence[Sequence[str]]) -> list[list[list[int]]]:
    """Return the ids of each word of each sentence, at least one per word, without BOS and EOS."""
    spaced = [
        [word if not place else f" {word}" for place, word in enumerate(words)]
        for words in sentences
    ]
    different = list(dict.fromkeys(chain.from_iterable(spaced)))
    # A word of characters that the tokenizer drops still needs a piece for its tag.
    pieces = {
        word: ids.tolist() or [tokenizer.unk_id]
        for word, ids in zip(different, tokenizer.encode(different), strict=True)
    }
    return [[pieces[word] for word in words] for words in spaced]


TEXT_CLASSIFICATION = TextClassificationData()
TOKEN_CLASSIFICATION = TokenClassificationData()
