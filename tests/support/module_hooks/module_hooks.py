"""Wrap functions of modules as they are imported, in processes that a test starts.

Standard library only, and imported by its path: every process of Ray imports this.
"""

import functools
import importlib.machinery


class Finder:
    """Finds modules as Python does, and wraps their functions once they are executed."""

    def __init__(self, hooks):
        """Take the wrappers by module and dotted name of the function."""
        self._hooks = hooks

    def find_spec(self, name, path=None, target=None):
        if name not in self._hooks:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            for dotted, wrap in self._hooks[name].items():
                *owners, attribute = dotted.split(".")
                owner = functools.reduce(getattr, owners, module)
                setattr(owner, attribute, wrap(getattr(owner, attribute)))

        spec.loader.exec_module = exec_module
        return spec
