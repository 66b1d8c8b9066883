"""What goes over HTTP: requests, answers and problems. `openapi.py` makes the interface of them."""

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
    """Sentences, and how they are to be translated."""

    sentences: Annotated[list[str], Field(min_length=1, description="One sentence each.")]
    n_best: Annotated[
        int, Field(ge=1, description="Translations of each sentence, the best first.")
    ] = 1
    tag: Annotated[
        str | None,
        Field(description="Put before every sentence, as a corpus's tag in training."),
    ] = None
    prefixes: Annotated[
        list[str] | None,
        Field(description='What each translation begins with; "" leaves it free.'),
    ] = None
    alignments: Annotated[
        bool, Field(description="Also tell which word each word comes from, by attention.")
    ] = False


class OneTranslation(FileModel):
    """A translation of a sentence."""

    text: str
    score: Annotated[float, Field(description="Log-probability (nats) over the length penalty.")]
    alignment: Annotated[
        list[tuple[Count, Count]] | None,
        Field(description="Pairs of a source word and a word of the text, numbered from 0."),
    ] = None


class TranslateAnswer(FileModel):
    """The translations of each sentence, in the order of the request."""

    run: str
    checkpoints: Annotated[
        list[str], Field(description="The checkpoints that made them: one, but for a change.")
    ]
    translations: list[list[OneTranslation]]


class Problem(FileModel):
    """Why there is no answer."""

    kind: ProblemKind
    problem: Annotated[str, Field(description="For a person.")]
    sentence: Annotated[
        Count | None, Field(description="Which sentence is meant, counted from 0.")
    ] = None
    retry_after_seconds: Annotated[
        Count | None, Field(description="When to ask again, also in the header Retry-After.")
    ] = None


class RunLimits(FileModel):
    """What a request to a run may ask for."""

    sentences: Count
    tokens: Annotated[Count, Field(description="Of a sentence, with tag and end.")]
    n_best: Count
    request_bytes: Count


class ServedRun(FileModel):
    """A run, and how it stands."""

    name: str
    source_language: str
    target_language: str
    ready: bool
    replicas: Annotated[Count, Field(description="Those that were heard of lately.")]
    checkpoints: Annotated[list[str], Field(description="Those that replicas translate with.")]
    damaged: Annotated[
        list[str], Field(description="What is wrong with checkpoints that were not taken up.")
    ]
    waiting_sentences: Count
    limits: RunLimits


class Standing(FileModel):
    """Whether requests are taken, and how each run stands."""

    ready: bool
    problem: str | None = None
    runs: list[ServedRun]
