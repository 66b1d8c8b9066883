"""HTTP messages: requests, responses and problems; `openapi.py` generates their schema."""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from foundation.file_model import Count, FileModel
from foundation.wording import counted

# Seconds in Retry-After, by the status of the response.
RETRY_AFTER_SECONDS = {429: 1, 503: 5, 504: 5}

ProblemKind = Literal[
    "not_understood",
    "not_found",
    "not_allowed",
    "too_large",
    "too_many_sentences",
    "too_long",
    "tag",
    "prefix",
    "queue_full",
    "not_ready",
    "timeout",
    "failed",
]


class Message(FileModel):
    """Message whose attributes have their descriptions in the API reference."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class TranslateRequest(Message):
    """Sentences to translate, and options."""

    sentences: Annotated[list[str], Field(min_length=1)]
    """Sentences to translate."""
    n_best: Annotated[int, Field(ge=1)] = 1
    """Number of translations of each sentence."""
    tag: str | None = None
    """Tag to add before every sentence, like the tag of a training corpus."""
    prefixes: list[str] | None = None
    """The required beginning of each translation, or ""."""
    alignments: bool = False
    """True to also return word alignments."""

    @model_validator(mode="after")
    def _each_sentence_has_a_prefix(self) -> Self:
        if self.prefixes is not None and len(self.prefixes) != len(self.sentences):
            raise ValueError(
                f"{counted(len(self.sentences), 'sentence')} and "
                f"{counted(len(self.prefixes), 'prefix')}, but each sentence needs a prefix: "
                'use "" for a sentence without a prefix'
            )
        return self


class OneTranslation(Message):
    """A translation of a sentence."""

    text: str
    score: float
    """Log-probability (nats) divided by the length penalty."""
    alignment: list[tuple[Count, Count]] | None = None
    """Pairs of indices from 0: a word of the source and a word of `text`."""


class TranslateAnswer(Message):
    """Translations of each sentence, in the order of the request; the best is first."""

    run: str
    checkpoints: list[str]
    """Names of the checkpoints that made the translations."""
    translations: list[list[OneTranslation]]


class Problem(Message):
    """Reason for an unsuccessful request."""

    kind: ProblemKind
    problem: str
    """Human-readable message."""
    sentence: Count | None = None
    """Index, from 0, of the sentence with the problem."""
    retry_after_seconds: Count | None = None
    """Seconds to wait before a retry, also in the header Retry-After."""


class RunLimits(Message):
    """Limits of a request to a run."""

    sentences: Count
    tokens: Count
    """Maximum tokens of a sentence, with tag and EOS."""
    n_best: Count
    request_bytes: Count


class ServedRun(Message):
    """A served run and its status."""

    name: str
    source_language: str
    target_language: str
    ready: bool
    replicas: Count
    """Number of replicas that are ready."""
    checkpoints: list[str]
    """Names of the checkpoints that the replicas use."""
    damaged: list[str]
    """Reasons why newer checkpoints could not be loaded."""
    waiting_sentences: Count
    limits: RunLimits


class Standing(Message):
    """Status of the server and of each run."""

    ready: bool
    problem: str | None = None
    runs: list[ServedRun]


class RefusedError(Exception):
    """Refusal or failure of a request, which therefore gets no translations.

    Attributes:
        status: HTTP status of the response.
        answer: the content of the response.
    """

    def __init__(
        self, status: int, kind: ProblemKind, problem: str, sentence: int | None = None
    ) -> None:
        """Create the refusal; see `Problem` for the arguments other than the status."""
        super().__init__(problem)
        self.status = status
        seconds = RETRY_AFTER_SECONDS.get(status)
        self.answer = Problem(
            kind=kind, problem=problem, sentence=sentence, retry_after_seconds=seconds
        )
