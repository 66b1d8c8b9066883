"""Fixtures that the tests of several packages of transloom share."""

from support.two_corpora import transloom, two_corpora  # noqa: F401  (fixtures)
from support.untrained import translator_of, untrained  # noqa: F401  (fixtures)
