"""HTTP messages: requests, responses and problems; `openapi.py` generates their schema."""

from typing import Annotated, Literal

from pydantic import Field

from foundation.file_model import Count, FileModel

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

    sentences: Annotated[list[str], Field(min_length=1, description="One sentence each.")]
    n_best: Annotated[
        int, Field(ge=1, description="Translations of each sentence, the best first.")
    ] = 1
    tag: Annotated[
        str | None,
        Field(description="Tag that precedes every sentence, as a corpus's tag does in training."),
    ] = None
    prefixes: Annotated[
        list[str] | None,
        Field(description='Required beginning of each translation; "" means none.'),
    ] = None
    alignments: Annotated[
        bool, Field(description="Also return the alignment of words, by attention.")
    ] = False


class OneTranslation(FileModel):
    """A translation of a sentence."""

    text: str
    score: Annotated[float, Field(description="Log-probability (nats) over the length penalty.")]
    alignment: Annotated[
        list[tuple[Count, Count]] | None,
        Field(description="Pairs of word numbers, from 0: a source word and a word of `text`."),
    ] = None


class TranslateAnswer(FileModel):
    """Translations of each sentence, in the order of the request."""

    run: str
    checkpoints: Annotated[
        list[str], Field(description="Checkpoints used: usually one, several during a change.")
    ]
    translations: list[list[OneTranslation]]


class Problem(FileModel):
    """Reason for an unsuccessful request."""

    kind: ProblemKind
    problem: Annotated[str, Field(description="Human-readable message.")]
    sentence: Annotated[
        Count | None, Field(description="Index of the sentence concerned, from 0.")
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
    replicas: Annotated[Count, Field(description="Replicas that reported recently.")]
    checkpoints: Annotated[
        list[str], Field(description="Checkpoints that replicas translate with.")
    ]
    damaged: Annotated[
        list[str], Field(description="Faults of checkpoints that could not be loaded.")
    ]
    waiting_sentences: Count
    limits: RunLimits


class Standing(FileModel):
    """Status of the server and of each run."""

    ready: bool
    problem: str | None = None
    runs: list[ServedRun]
