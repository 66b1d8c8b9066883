"""Fixtures shared by tests of several packages."""

from support.untrained import translator_of, untrained  # noqa: F401  (fixtures)
