"""Errors of a request: refused by the dispatcher, or a lost replica."""

from transloom.inference.serving.messages import ProblemKind


class ReplicaLostError(Exception):
    """The replica of a batch was lost, or no replica was available."""


class RefusedError(Exception):
    """A request gets no translations.

    Attributes:
        status: of the HTTP response.
    """

    def __init__(
        self,
        status: int,
        kind: ProblemKind,
        problem: str,
        sentence: int | None = None,
        retry_after_seconds: int | None = None,
    ) -> None:
        super().__init__(problem)
        self.status, self.kind, self.problem = status, kind, problem
        self.sentence, self.retry_after_seconds = sentence, retry_after_seconds
