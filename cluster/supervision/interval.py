"""What a loop does only every so often."""


class Interval:
    """At the first look, and whenever so many seconds have passed since it was so last."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._next = 0.0

    def has_passed(self, now: float) -> bool:
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True
