"""Replace parts of the program in a test, by their names.

An unknown name is an error. Otherwise nothing would be replaced, and the test could pass for the
wrong reason.
"""

import functools
import importlib
from collections.abc import Iterable, Mapping


def plant(owner: object, **values: object) -> None:
    """Set attributes of a module, class or object to other values."""
    for name, value in values.items():
        if not hasattr(owner, name):
            raise AttributeError(
                f"{owner} has no {name} any more: name in the test what has taken its place"
            )
        setattr(owner, name, value)


def require(hooks: Mapping[str, Iterable[str]]) -> None:
    """Check that modules have the functions to hook; methods have a dotted name."""
    for module_name, names in hooks.items():
        module = importlib.import_module(module_name)
        for name in names:
            try:
                functools.reduce(getattr, name.split("."), module)
            except AttributeError as error:
                raise AttributeError(
                    f"{module_name} has no {name} any more: hook what has taken its place"
                ) from error
