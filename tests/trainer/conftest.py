"""Fixtures that tests of several packages share."""

from support.untrained import translator_of, untrained  # noqa: F401  (fixtures)
