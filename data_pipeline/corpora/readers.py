"""Readers: formats of corpora that an extension adds.

::

    def read_mine(stream: BinaryIO, corpus: CorpusConfig) -> Iterator[Example]:
        for record in parse(stream):
            yield Example(texts=(record.text,), score=None)

    READERS.register("mine", read_mine)

A reader gets the decompressed content of a file, which it can read once from its beginning. It also
gets the recipe's corpus, whose `columns` name the places of the texts. It yields examples with one
text per field, and raises CorpusError for invalid content. It runs in one process, while texts are
cleaned and encoded in all processes.
"""

from collections.abc import Callable, Iterable
from typing import BinaryIO

from data_pipeline.config.corpus import READERS, CorpusConfig
from data_pipeline.corpora.formats import Example

Reader = Callable[[BinaryIO, CorpusConfig], Iterable[Example]]

__all__ = ["READERS", "Reader"]
