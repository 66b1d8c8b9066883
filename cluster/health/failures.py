"""What the errors of ranks mean: which of several is the cause, and whether to try again.

When one rank fails, the others fail a moment later in the collective that it left. Errors of our
own name a cause in data, recipe or numbers that would come again. Other causes may not come again:
deaths, hangs, everything unexpected (a broken connection, a CUDA error, a full disk), and a record
that a rank of a lost node still holds. They become a RankLostError, and the ranks are started
again.
"""

from collections.abc import Sequence

from ray.exceptions import RayError, RayTaskError

from cluster.errors import ClusterError, RankLostError
from cluster.health.hang_detector import Position
from foundation.errors import DataError
from model.errors import ModelError
from trainer.errors import RecordInUseError, TrainerError

OWN_ERRORS = (ClusterError, DataError, ModelError, TrainerError)
MAX_REASON_CHARACTERS = 500


class RankDiedError(RankLostError):
    """The process of a rank is gone."""


def failure_of(name: str, position: Position, error: RayError) -> Exception:
    """The error that tells what has happened to a rank.

    Args:
        name: the rank's name in messages.
        error: what a request to the rank has raised.
    """
    if not isinstance(error, RayTaskError):
        return RankDiedError(f"{name} has died in phase {position}: {_cause_of_death(error)}")
    cause: Exception = error.cause
    if isinstance(cause, OWN_ERRORS) and not isinstance(cause, RecordInUseError):
        cause.add_note(f"({name} has raised this in phase {position}.)")
        return cause
    reason = f"{type(cause).__name__}: {cause}"[:MAX_REASON_CHARACTERS]
    failure = RankLostError(f"{name} has failed in phase {position}: {reason}")
    failure.__cause__ = error
    return failure


def _cause_of_death(error: RayError) -> str:
    """The sentence of Ray's message that tells the cause, without the advice around it."""
    detail = str(error).rpartition("Worker exit detail: ")[2]
    return detail.partition(" Some common causes")[0].split("\n", 1)[0]


def is_certain(failures: Sequence[Exception]) -> bool:
    """Whether the cause is among these failures, so that there is no need to wait for others."""
    return any(isinstance(f, RankDiedError) or is_permanent(f) for f in failures)


def cause_of(failures: Sequence[Exception]) -> Exception:
    """The cause among failures: a rank's death, else an error of our own, else the first one."""
    return max(failures, key=lambda f: (isinstance(f, RankDiedError), is_permanent(f)))


def is_permanent(failure: Exception) -> bool:
    """Whether starting the ranks again would be of no use."""
    return not isinstance(failure, RankLostError)
