"""Fixtures that tests of several packages share."""

from support.two_corpora import transloom, two_corpora  # noqa: F401  (fixtures)
