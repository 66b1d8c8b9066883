"""Why there is no translation: for the dispatcher, and for whoever asks."""

from transloom.inference.serving.messages import ProblemKind


class ReplicaLostError(Exception):
    """The replica that had a batch is gone, or none was there to take it."""


class RefusedError(Exception):
    """A request gets no translations.

    Attributes:
        status: of the HTTP answer.
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
