"""Replace a part of the program in a test, by the name of the part.

A name that is not there any more fails loudly: else nothing would be planted, and the test would
pass for the wrong reason.
"""

import functools
import importlib
from collections.abc import Iterable, Mapping


def plant(owner: object, **values: object) -> None:
    """Give attributes of a module, class or object other values."""
    for name, value in values.items():
        if not hasattr(owner, name):
            raise AttributeError(
                f"{owner} has no {name} any more: name in the test what has taken its place"
            )
        setattr(owner, name, value)


def require(hooks: Mapping[str, Iterable[str]]) -> None:
    """See that modules have what is to be hooked there: names of functions, methods with a dot."""
    for module_name, names in hooks.items():
        module = importlib.import_module(module_name)
        for name in names:
            try:
                functools.reduce(getattr, name.split("."), module)
            except AttributeError as error:
                raise AttributeError(
                    f"{module_name} has no {name} any more: hook what has taken its place"
                ) from error
