"""Error for models that cannot run in a page."""

from trainer.errors import TrainerError


class NotLiveError(TrainerError):
    """This model cannot run in a page; the message gives the reason, without a final period."""
