"""Errors of recipes, Ray and jobs. Messages are written for users.

This file imports none of our modules. `cluster.packages` imports it before checking that Python
finds transloom's packages instead of other packages with the same names.
"""

# Exit codes of the command line; 75 (EX_TEMPFAIL of sysexits.h) requests a restart.
EXIT_FAILED, EXIT_USAGE, EXIT_PREEMPTED = 1, 2, 75


class ClusterError(Exception):
    """Ray, a job or a recipe does not allow the requested operation."""


class RecipeError(ClusterError):
    """The recipe, or an override of it, is invalid."""


class RankLostError(ClusterError):
    """A rank has died, hangs, or has failed with an error that a retry may avoid."""


class RankHungError(RankLostError):
    """A rank makes no progress, although its process is alive."""


class HeadLostError(ClusterError):
    """The head of the Ray cluster does not answer, so its session must end without a shutdown."""


class EmbeddedRayError(ClusterError):
    """The Ray started by this process is lost or did not start; a second start may succeed."""
