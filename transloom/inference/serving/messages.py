"""HTTP messages: requests, responses and problems; `openapi.py` generates their schema."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

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


class TranslateRequest(FileModel):
    """Sentences to translate, and options."""

    sentences: Annotated[list[str], Field(min_length=1, description="Sentences to translate.")]
    n_best: Annotated[int, Field(ge=1, description="Number of translations of each sentence.")] = 1
    tag: Annotated[
        str | None,
        Field(description="Tag to add before every sentence, like the tag of a training corpus."),
    ] = None
    prefixes: Annotated[
        list[str] | None,
        Field(description='The required beginning of each translation, or "".'),
    ] = None
    alignments: Annotated[bool, Field(description="True to also return word alignments.")] = False

    @model_validator(mode="after")
    def _each_sentence_has_a_prefix(self) -> Self:
        if self.prefixes is not None and len(self.prefixes) != len(self.sentences):
            raise ValueError(
                f"{counted(len(self.sentences), 'sentence')} and "
                f"{counted(len(self.prefixes), 'prefix')}, but each sentence needs a prefix: "
                'use "" for a sentence without a prefix'
            )
        return self


class OneTranslation(FileModel):
    """A translation of a sentence."""

    text: str
    score: Annotated[
        float, Field(description="Log-probability (nats) divided by the length penalty.")
    ]
    alignment: Annotated[
        list[tuple[Count, Count]] | None,
        Field(description="Pairs of indices from 0: a word of the source and a word of `text`."),
    ] = None


class TranslateAnswer(FileModel):
    """Translations of each sentence, in the order of the request; the best is first."""

    run: str
    checkpoints: Annotated[
        list[str], Field(description="Names of the checkpoints that made the translations.")
    ]
    translations: list[list[OneTranslation]]


class Problem(FileModel):
    """Reason for an unsuccessful request."""

    kind: ProblemKind
    problem: Annotated[str, Field(description="Human-readable message.")]
    sentence: Annotated[
        Count | None, Field(description="Index, from 0, of the sentence with the problem.")
    ] = None
    retry_after_seconds: Annotated[
        Count | None,
        Field(description="Seconds to wait before a retry, also in the header Retry-After."),
    ] = None


class RunLimits(FileModel):
    """Limits of a request to a run."""

    sentences: Count
    tokens: Annotated[Count, Field(description="Maximum tokens of a sentence, with tag and EOS.")]
    n_best: Count
    request_bytes: Count


class ServedRun(FileModel):
    """A served run and its status."""

    name: str
    source_language: str
    target_language: str
    ready: bool
    replicas: Annotated[Count, Field(description="Number of replicas that are ready.")]
    checkpoints: Annotated[
        list[str], Field(description="Names of the checkpoints that the replicas use.")
    ]
    damaged: Annotated[
        list[str], Field(description="Reasons why newer checkpoints could not be loaded.")
    ]
    waiting_sentences: Count
    limits: RunLimits


class Standing(FileModel):
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
