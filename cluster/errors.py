"""Mistakes and misfortunes at the level of the cluster. Messages are written for users."""


class ClusterError(Exception):
    """Ray, a job or a recipe does not allow what was asked."""


class RecipeError(ClusterError):
    """The recipe, or an override of it, is wrong."""


class RankLostError(ClusterError):
    """The process of a rank has died."""
