"""Errors while a request is served: the request is refused or fails, or a replica is lost."""

from transloom.inference.serving.messages import ProblemKind


class ReplicaLostError(Exception):
    """Raised when the replica that translates a batch is lost, or when no replica is available."""


class RefusedError(Exception):
    """Refusal or failure of a request, which therefore gets no translations.

    Attributes:
        status: HTTP status of the response.
        kind, problem: category and description of the problem, for the client.
        sentence: index of the sentence with the problem, or None if the whole request is concerned.
        retry_after_seconds: time after which a retry may succeed, or None if a retry is pointless.
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
