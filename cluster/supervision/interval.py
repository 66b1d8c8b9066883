"""An interval between the times when a loop does something."""


class Interval:
    """Has passed at the first look, and whenever so many seconds are over since it last had."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._next = 0.0

    def has_passed(self, now: float) -> bool:
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True
