"""Readers: formats of corpora that an extension adds.

::

    def read_mine(stream: BinaryIO, corpus: CorpusConfig) -> Iterator[Example]:
        for record in parse(stream):
            yield Example(texts=(record.text,), score=None)

    READERS.register("mine", read_mine)

A reader gets the decompressed content of a file, which it can read once from its beginning, and the
recipe's corpus, whose `columns` say where a text is. It yields examples with a text for each field,
and raises CorpusError for what is wrong. It runs in one process: texts are cleaned and encoded in
all of them.
"""

from collections.abc import Callable, Iterable
from typing import BinaryIO

from data_pipeline.config.corpus import READERS, CorpusConfig
from data_pipeline.corpora.formats import Example

Reader = Callable[[BinaryIO, CorpusConfig], Iterable[Example]]

__all__ = ["READERS", "Reader"]
