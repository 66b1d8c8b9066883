"""Errors for settings and inputs that a network cannot work with."""


class ModelError(Exception):
    """Unsupported setting or input of a network; the message gives the remedy."""


class PrefixError(ModelError):
    """A prefix with which no translation can begin.

    Attributes:
        index: index of the prefix in the request, from 0.
        problem: predicate of a sentence about the prefix, such as "has 9 tokens, but …".
    """

    def __init__(self, index: int, problem: str) -> None:
        super().__init__(f"Prefix {index + 1} {problem}")
        self.index = index
        self.problem = problem

    def __reduce__(self) -> tuple[type["PrefixError"], tuple[int, str]]:
        return PrefixError, (self.index, self.problem)  # for pickling between processes
