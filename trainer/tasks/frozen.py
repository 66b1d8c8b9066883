"""Which parameters a recipe leaves as they are: `trainer.frozen`, patterns on their names.

    names of the network, patterns ──frozen_names──▶ the frozen ones, in the network's order

A pattern is a shell's: `*` stands for any characters, dots too, `?` for one, `[0-2]` for one of
some.
"""

from collections.abc import Collection, Iterable
from difflib import get_close_matches
from fnmatch import fnmatchcase

from foundation.wording import counted
from trainer.errors import EngineError

NEAREST = 3  # parameters that a message names


def frozen_names(parameters: Collection[str], patterns: Iterable[str]) -> tuple[str, ...]:
    """The parameters that match one of the patterns.

    Raises:
        EngineError: a pattern matches none, or all parameters are frozen.
    """
    matched: set[str] = set()
    for pattern in patterns:
        found = {name for name in parameters if fnmatchcase(name, pattern)}
        if not found:
            raise EngineError(
                f"trainer.frozen has {pattern!r}, which is the name of none of "
                f"{counted(len(parameters), 'parameter')}; the nearest are "
                f"{', '.join(_nearest(pattern, parameters))}. Correct or remove it"
            )
        matched |= found
    if matched and len(matched) == len(parameters):
        raise EngineError(
            f"trainer.frozen is {', '.join(patterns)}, which freezes all of "
            f"{counted(len(parameters), 'parameter')}: leave some to be trained"
        )
    return tuple(name for name in parameters if name in matched)


def _nearest(pattern: str, parameters: Collection[str]) -> list[str]:
    """Parameters that somebody who wrote the pattern may have meant."""
    return get_close_matches(pattern, parameters, NEAREST, cutoff=0.0)
