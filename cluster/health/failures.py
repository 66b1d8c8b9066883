"""Classify errors of ranks: find the cause among several, and decide whether to retry.

When one rank fails, the other ranks fail a moment later, in the collective that waits for it.
Errors of transloom's own classes name a cause in data, recipe or numbers that would recur. Other
causes may not recur: deaths, hangs, and everything unexpected, such as a broken connection, a CUDA
error or a full disk. A `RecordInUseError` may not recur either: a rank on a lost node may still
hold the record, but end soon. Causes that may not recur become a `RankLostError`, and the ranks
restart.
"""

from collections.abc import Sequence

from ray.exceptions import RayError, RayTaskError

from cluster.errors import ClusterError, RankLostError
from cluster.health.hang_detector import Position
from foundation.errors import DataError
from model.errors import ModelError
from run_store.errors import RecordInUseError, RunError

OWN_ERRORS = (ClusterError, DataError, ModelError, RunError)
MAX_REASON_CHARACTERS = 500


class RankDiedError(RankLostError):
    """A rank's process has died."""


def failure_of(name: str, position: Position, error: RayError) -> Exception:
    """Return the error that describes the failure of a rank.

    Args:
        name: the rank's name in messages.
        error: the exception raised by a request to the rank.
    """
    if not isinstance(error, RayTaskError):
        return RankDiedError(f"{name} has died in phase {position}: {_cause_of_death(error)}")
    cause: Exception = error.cause
    if isinstance(cause, OWN_ERRORS) and not isinstance(cause, RecordInUseError):
        cause.add_note(f"({name} raised this in phase {position}.)")
        return cause
    reason = f"{type(cause).__name__}: {cause}"[:MAX_REASON_CHARACTERS]
    failure = RankLostError(f"{name} has failed in phase {position}: {reason}")
    failure.__cause__ = error
    return failure


def _cause_of_death(error: RayError) -> str:
    """Extract the sentence with the cause from Ray's message, without the advice around it."""
    detail = str(error).rpartition("Worker exit detail: ")[2]
    return detail.partition(" Some common causes")[0].split("\n", 1)[0]


def is_certain(failures: Sequence[Exception]) -> bool:
    """Return whether these failures include the cause, so that no further failures are awaited."""
    return any(isinstance(f, RankDiedError) or is_permanent(f) for f in failures)


def cause_of(failures: Sequence[Exception]) -> Exception:
    """Return the likely cause: a rank's death, or else a permanent error or the first failure."""
    return max(failures, key=lambda f: (isinstance(f, RankDiedError), is_permanent(f)))


def is_permanent(failure: Exception) -> bool:
    """Return whether the failure would recur after a restart of the ranks."""
    return not isinstance(failure, RankLostError)
