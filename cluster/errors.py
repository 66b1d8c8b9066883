"""Errors of recipes, Ray and jobs. Messages are written for users.

Nothing of ours is imported here: `cluster.packages`, which says whose packages are ours, needs it.
"""

# Exit codes of the command line; 75 (EX_TEMPFAIL of sysexits.h) asks to be started again.
EXIT_FAILED, EXIT_USAGE, EXIT_PREEMPTED = 1, 2, 75


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
