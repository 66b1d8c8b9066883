"""Errors for unusable text, datasets and batching settings.

Each message is one paragraph that gives the value found, the value expected and the remedy.
"""

from foundation.errors import DataError


class CorpusError(DataError):
    """A corpus cannot be found, fetched, verified, decoded or aligned."""


class TokenizerError(DataError):
    """A SentencePiece model cannot be trained, read or used."""


class DatasetError(DataError):
    """A prepared dataset is missing, incomplete, damaged, or does not match the recipe."""


class BatchingError(DataError):
    """The batching settings cannot hold for this data or for this number of ranks."""


class DatasetFileError(DatasetError):
    """A file of a dataset is not what the manifest promises.

    All state is in the arguments, so that pickle carries the error across process borders.
    """

    def __init__(self, file: str, expected: str, found: str) -> None:
        super().__init__(file, expected, found)
        self.file = file
        self.expected = expected
        self.found = found

    def __str__(self) -> str:
        return (
            f"{self.file} of the dataset cannot be used: expected {self.expected}, found "
            f"{self.found}. Nothing was skipped. If its disk or server was away, start the same "
            "command again. Otherwise restore the file from a copy, or prepare the dataset again: "
            "the same corpora give the same bytes. A shard that is lost for good can be left out "
            "with `transloom data quarantine`."
        )


class TarContentError(DataError):
    """A tar archive is damaged or holds what is not allowed in it.

    All state is in the arguments, so that pickle carries the error across process borders.
    """

    def __init__(self, archive: str, member: str, problem: str) -> None:
        super().__init__(archive, member, problem)
        self.archive = archive
        self.member = member
        self.problem = problem

    def __str__(self) -> str:
        return (
            f"{self.archive} cannot be used because of {self.member!r}: {self.problem}. Nothing "
            "was skipped. Fetch the archive again, or write it again with only the files that "
            "are needed."
        )
