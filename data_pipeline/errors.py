"""Errors for unusable text, datasets and batching settings.

Each message is one paragraph that gives the value found, the value expected and the remedy.
"""

from foundation.errors import DataError


class CorpusError(DataError):
    """A corpus cannot be found, fetched, verified, decoded or aligned."""


class TokenizerError(DataError):
    """A tokenizer's model cannot be trained, read or used."""


class DatasetError(DataError):
    """A prepared dataset is missing, incomplete, damaged, or does not match the recipe."""


class BatchingError(DataError):
    """The batching settings do not fit the data or the number of ranks."""


class DatasetFileError(DatasetError):
    """A file of a dataset is missing, damaged, or does not match the manifest.

    The base class gets all values as arguments, so that the error can be pickled and sent to
    another process.
    """

    def __init__(self, file: str, expected: str, found: str) -> None:
        super().__init__(file, expected, found)
        self.file = file
        self.expected = expected
        self.found = found

    def __str__(self) -> str:
        return (
            f"{self.file} of the dataset cannot be used: expected {self.expected}, found "
            f"{self.found}. Nothing was skipped. If the disk or server was unavailable, start the "
            "same command again. Otherwise restore the file from a copy, or prepare the dataset "
            "again: the same corpora give the same bytes. To exclude a permanently lost shard, use "
            "`transloom data quarantine`."
        )


class TarContentError(DataError):
    """A tar archive is damaged or contains a member that is not allowed.

    The base class gets all values as arguments, so that the error can be pickled and sent to
    another process.
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
