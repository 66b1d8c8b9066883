"""Mistakes and misfortunes at the level of the cluster. Messages are written for users."""

# What the command line exits with; 75 (EX_TEMPFAIL of sysexits.h) asks to be started again.
EXIT_FAILED, EXIT_USAGE, EXIT_PREEMPTED = 1, 2, 75


def full_message(error: BaseException) -> str:
    """An error's message, and what was noted on its way: once each, and no traceback."""
    notes = [note for note in getattr(error, "__notes__", []) if "\n" not in note]
    return " ".join(dict.fromkeys([str(error), *notes]))


class ClusterError(Exception):
    """Ray, a job or a recipe does not allow what was asked."""


class RecipeError(ClusterError):
    """The recipe, or an override of it, is wrong."""


class RankLostError(ClusterError):
    """A rank has died, hangs, or has failed in a way that may not come again."""


class RankHungError(RankLostError):
    """A rank gets no further, though its process is there."""


class HeadLostError(ClusterError):
    """The head of the Ray cluster does not answer; Ray cannot be parted from in good order."""


class EmbeddedRayError(ClusterError):
    """The Ray that this process started for itself is lost, or has not come up; another may."""
