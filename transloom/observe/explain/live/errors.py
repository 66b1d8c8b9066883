"""Error for models that cannot run in a page."""

from trainer.errors import TrainerError


class NotLiveError(TrainerError):
    """Error of a model that cannot run in a page; its message is the reason, without a period."""
