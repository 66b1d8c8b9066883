"""Errors while a request is served: the request is refused or fails, or a replica is lost."""

from transloom.inference.serving.messages import Problem, ProblemKind


class ReplicaLostError(Exception):
    """Raised when the replica that translates a batch is lost, or when no replica is available."""


class RefusedError(Exception):
    """Refusal or failure of a request, which therefore gets no translations.

    Attributes:
        status: HTTP status of the response.
        answer: the content of the response.
    """

    def __init__(
        self,
        status: int,
        kind: ProblemKind,
        problem: str,
        sentence: int | None = None,
        retry_after_seconds: int | None = None,
    ) -> None:
        """Create the refusal.

        Args:
            kind, problem: category and description of the problem, for the client.
            sentence: index of the sentence with the problem; None concerns the whole request.
            retry_after_seconds: time after which a retry may succeed; None if it is pointless.
        """
        super().__init__(problem)
        self.status = status
        self.answer = Problem(
            kind=kind, problem=problem, sentence=sentence, retry_after_seconds=retry_after_seconds
        )
