"""Wrap functions of modules as they are imported, in processes that a test starts.

This module is imported by its path and uses only the standard library, because every process of Ray
imports it.
"""

import functools
import importlib.machinery


class Finder:
    """Import finder that wraps functions of modules after the modules are executed."""

    def __init__(self, hooks):
        """Store the wrappers, by module and by the function's dotted name."""
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
