"""Interval between repetitions of an action in a loop."""


class Interval:
    """Interval whose `has_passed` is True on the first call, then at most once per `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._next = 0.0

    def has_passed(self, now: float) -> bool:
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True
