"""Wrong text, datasets and batching settings.

Each message is one paragraph with both values and the remedy.
"""


class DataError(Exception):
    """Base of everything that data_pipeline raises for wrong input."""


class CorpusError(DataError):
    """A corpus cannot be found, fetched, verified, decoded or aligned."""


class TokenizerError(DataError):
    """A SentencePiece model cannot be trained, read or used."""


class DatasetError(DataError):
    """A prepared dataset is missing, incomplete, damaged, or not the one the recipe asks for."""


class BatchingError(DataError):
    """The batching settings cannot hold for this data or for this number of ranks."""


class ShardError(DataError):
    """A shard is not what the manifest promises.

    All state is in the arguments, so that the error crosses process borders by pickle.
    """

    def __init__(self, shard: str, expected: str, found: str) -> None:
        super().__init__(shard, expected, found)
        self.shard = shard
        self.expected = expected
        self.found = found

    def __str__(self) -> str:
        return (
            f"Shard {self.shard} cannot be used: expected {self.expected}, found {self.found}. "
            "Nothing was skipped. Restore the file from a copy, or run `transloom prepare` again: "
            "the same corpora give the same bytes."
        )
