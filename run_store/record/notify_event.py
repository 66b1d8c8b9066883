"""Events of a run of which people are notified."""

from typing import Literal, get_args

NotifyEvent = Literal[
    "finished",
    "failed",
    "stopped",
    "restarts",
    "stalled",
    "loss_spike",
    "skipped_steps",
    "bad_node",
    "slow_rank",
    "hang",
    "best_score",
]
EVENTS: tuple[NotifyEvent, ...] = get_args(NotifyEvent)
