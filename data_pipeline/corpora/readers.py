"""Readers of corpus formats that extensions add.

::

    def read_mine(stream: BinaryIO, corpus: CorpusConfig) -> Iterator[Example]:
        for record in parse(stream):
            yield Example(texts=(record.text,), score=None)

    READERS.register("mine", read_mine)

The stream has the decompressed content of a file, and can be read once from its beginning. `corpus`
is the corpus in the recipe; its `columns` name the locations of the texts. The reader yields
examples with one text per field, and raises CorpusError for invalid content. The reader runs in a
single process, whereas cleaning and encoding use all processes.
"""

from collections.abc import Callable, Iterable
from typing import BinaryIO

from data_pipeline.config.corpus import READERS, CorpusConfig
from data_pipeline.corpora.formats import Example

Reader = Callable[[BinaryIO, CorpusConfig], Iterable[Example]]

__all__ = ["READERS", "Reader"]
