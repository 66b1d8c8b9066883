"""Classification of words, as in tagging: one label per word, predicted at its first piece.

Each word is encoded separately, with the space before it. For any tokenizer, a piece then belongs
to exactly one word. If no piece of the tokenizer crosses a space, as in models that are trained
here, the ids equal those of the whole text. Devlin et al. 2019, §5.3, also predict a word's label
at its first piece.
"""

from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np

from data_pipeline.arrays import FieldArrays, flattened
from data_pipeline.config.label import TAGS
from data_pipeline.config.text import TEXT
from data_pipeline.dataset.manifest_header import FieldInfo
from data_pipeline.tasks.labelled import LabelledData, numbers_of
from data_pipeline.tasks.masking import LABELS_FIELD
from data_pipeline.tokenizers.tokenizer import Tokenizer

_NO_TAG = 0


class TokenClassificationData(LabelledData):
    """Data side of tagging, in numpy; a tag is stored as a number for each token, 0 for no tag."""

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


TASK = TokenClassificationData()
