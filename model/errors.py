"""What the network refuses, in the user's words."""


class ModelError(Exception):
    """A setting or an input that the network cannot work with; the message says what to change."""


class PrefixError(ModelError):
    """A prefix that no translation can begin with.

    Attributes:
        index: the prefix's place among those that were given, from 0.
        problem: what is wrong with the prefix, as a sentence's predicate.
    """

    def __init__(self, index: int, problem: str) -> None:
        super().__init__(f"Prefix {index + 1} {problem}")
        self.index = index
        self.problem = problem

    def __reduce__(self) -> tuple[type["PrefixError"], tuple[int, str]]:
        return PrefixError, (self.index, self.problem)  # from one process to another
