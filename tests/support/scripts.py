"""Import the repository's scripts, which belong to no package."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@contextmanager
def imported_script(path: str) -> Iterator[ModuleType]:
    """Import a script as a module while the context lasts.

    Args:
        path: the path of the script below scripts/.
    """
    name = f"script_{Path(path).stem}"
    loader = SourceFileLoader(name, str(SCRIPTS / path))
    spec = spec_from_loader(name, loader)
    assert spec
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses search for the module there
    try:
        loader.exec_module(module)
        yield module
    finally:
        del sys.modules[name]
