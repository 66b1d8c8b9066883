"""Actors without Ray: a call returns, fails or stays pending, as a test specifies.

`ScriptedRay` replaces `ray` in a module that waits for actors. It accepts the references of
`ScriptedActor`, which records all calls.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from ray.exceptions import ActorDiedError, GetTimeoutError

DEAD = ActorDiedError()


class Answer:
    """Result of a call, which may be pending."""

    def __init__(self, value: Any = None, *, comes: bool = True) -> None:
        """
        Args:
            value: the result; if it is an exception, `ScriptedRay.get` raises it.
        """
        self.value = value
        self.has_come = comes

    def come(self, value: Any = None) -> None:
        self.value, self.has_come = value, True


def pending() -> Answer:
    return Answer(comes=False)


class ScriptedActor:
    """Actor whose methods return scripted results.

    Attributes:
        calls: the arguments of each call, by method and in order.
        answers: the results of each method, in order; later calls stay pending. A function
            computes the result from the arguments.
    """

    def __init__(self, **answers: Sequence[Answer] | Callable[..., Any]) -> None:
        self.calls: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
        self.answers = {
            name: given if callable(given) else list(given) for name, given in answers.items()
        }

    def __getattr__(self, name: str) -> Any:
        def remote(*arguments: Any, **named: Any) -> Answer:
            self.calls[name].append((*arguments, *named.values()))
            given = self.answers.get(name)
            if callable(given):
                return Answer(given(*arguments, **named))
            return given.pop(0) if given else pending()

        method = SimpleNamespace(remote=remote)
        method.options = lambda **_: method
        return method


class ScriptedRay:
    """Part of `ray` that waits for results.

    Attributes:
        waits: the timeout of each wait for pending results.
        killed: the actors that were killed, in order.
        requests: the number of calls of `wait` and `get`.
    """

    def __init__(self) -> None:
        self.waits: list[float | None] = []
        self.killed: list[Any] = []
        self.requests = 0

    def wait(
        self,
        answers: list[Answer],
        num_returns: int = 1,
        timeout: float | None = None,
        fetch_local: bool = True,
    ) -> tuple[list[Answer], list[Answer]]:
        self.requests += 1
        assert len(set(map(id, answers))) == len(answers)
        assert 1 <= num_returns <= len(answers)
        come = [answer for answer in answers if answer.has_come][:num_returns]
        if len(come) < num_returns and timeout:
            self.waits.append(timeout)
        return come, [answer for answer in answers if answer not in come]

    def get(self, answer: Any, timeout: float | None = None) -> Any:
        self.requests += 1
        if isinstance(answer, list):
            return [self._value(one, timeout) for one in answer]
        return self._value(answer, timeout)

    def _value(self, answer: Answer, timeout: float | None) -> Any:
        assert answer.has_come or timeout is not None, "it would wait for ever"
        if not answer.has_come:
            raise GetTimeoutError
        if isinstance(answer.value, Exception):
            raise answer.value
        return answer.value

    def kill(self, actor: Any) -> None:
        self.killed.append(actor)
