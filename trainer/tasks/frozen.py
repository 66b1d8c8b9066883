"""Frozen parameters of a recipe, which `trainer.frozen` selects by patterns of names.

    names of the network, patterns ──frozen_names──▶ the frozen names, in the network's order

Patterns follow the rules of a shell: `*` matches any characters including dots, `?` matches one
character, and `[0-2]` matches one character of a set.
"""

from collections.abc import Collection, Iterable
from difflib import get_close_matches
from fnmatch import fnmatchcase

from foundation.wording import counted
from trainer.errors import EngineError

NEAREST = 3  # number of similar parameters that an error message lists


def frozen_names(parameters: Collection[str], patterns: Iterable[str]) -> tuple[str, ...]:
    """Return the names that match at least one of the patterns.

    Raises:
        EngineError: a pattern matches no parameter, or all parameters are frozen.
    """
    matched: set[str] = set()
    for pattern in patterns:
        found = {name for name in parameters if fnmatchcase(name, pattern)}
        if not found:
            nearest = get_close_matches(pattern, parameters, NEAREST, cutoff=0.0)
            raise EngineError(
                f"trainer.frozen has the pattern {pattern!r}, which matches none of "
                f"{counted(len(parameters), 'parameter')}. The most similar names are "
                f"{', '.join(nearest)}. Correct or remove the pattern"
            )
        matched |= found
    if matched and len(matched) == len(parameters):
        raise EngineError(
            f"trainer.frozen is {', '.join(patterns)}, which freezes all of "
            f"{counted(len(parameters), 'parameter')}: freeze fewer, so that some are trained"
        )
    return tuple(name for name in parameters if name in matched)
