"""Extensions: modules outside transloom's packages, named by a recipe, that register objects.

    names, folder ──find──▶ files, their sha256 ──compared with the expected one──▶ import

A recipe lists modules under `extensions`. Every process that handles the recipe loads them before
it parses the rest. Code comes from installed packages, from the folder in the environment variable
TRANSLOOM_EXTENSIONS, or from the `extension_folder` of a recipe that the user named. Code never
comes from data: a recipe that is stored in a run, a checkpoint or a job provides only the names of
its extensions.

An extension's version and the sha256 of its package's Python files are part of the run's identity,
so changed code requires a new run. If the files differ from those of the run, nothing is imported.
"""

import hashlib
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module, metadata
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from foundation.errors import ExtensionError, ExtensionNotFoundError

FOLDER_VARIABLE = "TRANSLOOM_EXTENSIONS"
NO_VERSION = "0"


@dataclass(frozen=True)
class Extension:
    """A module that a recipe names.

    Attributes:
        version: version of the installed distribution of its package, or "0" if there is none.
        sha256: hash of the names and contents of all Python files of its package.
    """

    name: str
    version: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.version} sha256:{self.sha256}"


@dataclass(frozen=True)
class Extensions:
    """The extensions of a recipe. Unpickling loads them, and fails if their code has changed."""

    modules: tuple[Extension, ...] = ()
    folder: str | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _load_same, (self.modules, self.folder)

    def identity(self) -> dict[str, str]:
        """Return the entries of the extensions in the identity of a run."""
        return {f"extensions.{module.name}": str(module) for module in self.modules}


NO_EXTENSIONS = Extensions()

_loaded: dict[str, Extension] = {}


def load_extensions(names: Sequence[str], folder: str | None = None) -> Extensions:
    """Import modules that register their objects.

    Args:
        folder: directory of the modules' packages, or None if they are installed.

    Raises:
        ExtensionError: a module is not found, or its import fails.
    """
    place = None if folder is None else str(Path(folder).expanduser().absolute())
    return Extensions(tuple(_load(name, place) for name in names), place)


def loaded_extensions(names: Sequence[str], folder: str | None = None) -> Extensions:
    """Return the extensions with these names, which this process must have loaded before."""
    return Extensions(tuple(_loaded[name] for name in names), folder)


def load_expected(
    names: Sequence[str],
    identity: Mapping[str, Any] | None,
    folder: str | None = None,
    named_folder: str | None = None,
) -> Extensions:
    """Load the extensions that a run names, after checking that their code has not changed.

    Args:
        identity: the run's identity, see `Extensions.identity`; None skips the check.
        folder: folder with the extensions' packages, named by the user.
        named_folder: folder named by the run. It is only quoted in a message; nothing is loaded
            from it.

    Raises:
        ExtensionError: an extension is not found, or its code has changed.
    """
    expected = {
        name: None if identity is None else str(identity.get(f"extensions.{name}"))
        for name in names
    }
    try:
        return Extensions(tuple(_load(n, folder, expected[n]) for n in names), folder)
    except ExtensionNotFoundError as error:
        remedy = _remedy_of_run(error.name.partition(".")[0], named_folder)
        raise ExtensionNotFoundError(error.name, error.places, remedy) from None


def _load_same(modules: tuple[Extension, ...], folder: str | None) -> Extensions:
    return Extensions(tuple(_load(m.name, folder, str(m)) for m in modules), folder)


def _load(name: str, folder: str | None, expected: str | None = None) -> Extension:
    if name not in _loaded:
        given = [f for f in (folder, os.environ.get(FOLDER_VARIABLE)) if f]
        folders = [str(Path(f).expanduser().resolve()) for f in given]
        package = name.partition(".")[0]
        found = _find(name, package, folders)
        extension = Extension(name, _version(package), _hash(_files(found)))
        _require_same(extension, expected)
        for path in reversed(folders):
            if path not in sys.path:
                sys.path.insert(0, path)
        _require_first(name, package, found)
        _import(name)
        _loaded[name] = extension
    _require_same(_loaded[name], expected)
    return _loaded[name]


def _import(name: str) -> None:
    try:
        import_module(name)
    except ExtensionError:  # a registry has raised it
        raise
    except Exception as error:  # extension code may raise anything
        raise ExtensionError(
            f"The extension {name} cannot be imported: {type(error).__name__}: {error}. Install "
            "its dependencies, correct its code, or correct extensions in the recipe."
        ) from error


def _require_same(found: Extension, expected: str | None) -> None:
    if expected not in (None, str(found)):
        raise ExtensionError(
            f"The extension {found.name} is {found} on this machine, but {expected} where the run "
            f"was started. Install that version, set {FOLDER_VARIABLE} to its folder, or start a "
            "new run with this version."
        )


def _find(name: str, package: str, folders: list[str]) -> ModuleSpec:
    """Find a package without importing anything from it."""
    spec = PathFinder.find_spec(package, [*folders, *sys.path]) or _find_installed(package)
    if spec is None or not _places(spec):
        places = " or ".join(["the installed packages", *folders])
        remedy = (
            f"Install it, or name the folder that has {package} with extension_folder in the "
            f"recipe or with {FOLDER_VARIABLE}."
        )
        raise ExtensionNotFoundError(name, places, remedy)
    return spec


def _remedy_of_run(package: str, named_folder: str | None) -> str:
    """Return instructions for loading a run's extension, for a user who trusts it."""
    found = False
    with suppress(OSError):
        names = (package, f"{package}.py")
        found = any(Path(named_folder or "", name).exists() for name in names)
    if named_folder and found:
        return (
            "The run names a folder that has it, but transloom uses this folder only on request, "
            "because its code runs with your permissions. If you trust it, put this before the "
            "command: "
            f"{FOLDER_VARIABLE}={shlex.quote(named_folder)}"
        )
    return (
        f"Install it, or put this before the command, with the folder that has {package}: "
        f"{FOLDER_VARIABLE}=FOLDER"
    )


def _find_installed(package: str) -> ModuleSpec | None:
    """Return the spec that an import would use, or None; editable installations are included."""
    try:
        return find_spec(package)
    except ValueError:  # modules such as __main__ have no spec
        return None


def _places(spec: ModuleSpec) -> list[Path]:
    """Return the directories of a package, or the file of a module."""
    if spec.submodule_search_locations:
        return [Path(root).resolve() for root in spec.submodule_search_locations]
    return [Path(spec.origin).resolve()] if spec.has_location and spec.origin else []


def _require_first(name: str, package: str, found: ModuleSpec) -> None:
    """Check that an import loads the files that were hashed."""
    first = _find_installed(package)
    if first is None or _places(first) != _places(found):
        other = first.origin if first else "nothing"
        raise ExtensionError(
            f"The extension {name} is found in {_places(found)[0]}, but an import of {package} "
            f"loads {other}. Rename the extension."
        )


def _files(spec: ModuleSpec) -> dict[str, Path]:
    """Return the Python files of a package, by name."""
    places = _places(spec)
    if not spec.submodule_search_locations:
        return {places[0].name: places[0]}
    return {str(path.relative_to(root)): path for root in places for path in root.rglob("*.py")}


def _hash(files: dict[str, Path]) -> str:
    state = hashlib.sha256()
    for name, path in sorted(files.items()):
        content = path.read_bytes()
        state.update(f"{name}\0{len(content)}\0".encode() + content)
    return state.hexdigest()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return NO_VERSION
