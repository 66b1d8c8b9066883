"""Errors of recipes, Ray and jobs. Messages are written for users."""

from data_pipeline.location import without_credentials

# Exit codes of the command line; 75 (EX_TEMPFAIL of sysexits.h) asks to be started again.
EXIT_FAILED, EXIT_USAGE, EXIT_PREEMPTED = 1, 2, 75


def full_message(error: BaseException) -> str:
    """An error's message and its notes, once each, without a traceback and without credentials.

    A library's error in it may name a URL.
    """
    notes = [note for note in getattr(error, "__notes__", []) if "\n" not in note]
    return without_credentials(" ".join(dict.fromkeys([str(error), *notes])))


class ClusterError(Exception):
    """Ray, a job or a recipe does not allow what was asked."""


class RecipeError(ClusterError):
    """The recipe, or an override of it, is wrong."""


class RankLostError(ClusterError):
    """A rank has died, hangs, or has failed in a way that may not happen again."""


class RankHungError(RankLostError):
    """A rank makes no progress, though its process is there."""


class HeadLostError(ClusterError):
    """The head of the Ray cluster does not answer, so its session cannot be left in good order."""


class EmbeddedRayError(ClusterError):
    """The embedded Ray is lost or has not come up; this process may start another one."""
