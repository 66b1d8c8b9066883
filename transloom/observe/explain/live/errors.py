"""What a page cannot compute itself."""

from trainer.errors import TrainerError


class NotLiveError(TrainerError):
    """This model cannot run in a page; the message says what of it, without an end."""
