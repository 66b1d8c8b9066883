"""Registries of the names that a recipe may use, built in or registered by an extension.

    SCHEDULES.register("cosine", cosine)                      the object itself
    NETWORKS.register("tiny", "my_package.networks:tiny")     its import path, imported on first use

Registries of objects that need torch hold import paths. So a process that only reads the names,
such as the driver or a data worker, does not import torch.
"""

from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any, Generic, TypeVar, cast

from foundation.errors import ExtensionError

T = TypeVar("T")


class Registry(Generic[T]):
    """Objects of one kind, by the names that recipes use."""

    def __init__(self, kind: str, key: str) -> None:
        """Create an empty registry.

        Args:
            kind: kind of the objects, for messages, such as "schedule".
            key: recipe key whose value is a name in the registry, such as trainer.schedule.type.
        """
        self.kind = kind
        self.key = key
        self._entries: dict[str, T | str] = {}

    def register(self, name: str, entry: T | str) -> None:
        """Register an object under a name.

        Args:
            entry: the object, or its import path `MODULE:NAME`, which is imported on first use.

        Raises:
            ExtensionError: the name is already registered for another object.
        """
        if self._entries.get(name, entry) != entry:
            raise ExtensionError(
                f"The {self.kind} {name!r} is registered twice, as {self._entries[name]!r} and as "
                f"{entry!r}. Give one of them another name."
            )
        self._entries[name] = entry

    def __getitem__(self, name: str) -> T:
        """Return the object with a name.

        Raises:
            ExtensionError: no object has this name, or its import fails.
        """
        if name not in self._entries:
            raise ExtensionError(self.unknown(name))
        entry = self._entries[name] = resolved(self._entries[name])
        return entry

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def known(self, name: str, others: Sequence[str] = ()) -> str:
        """Return the name if it is registered; validators of recipe fields call this.

        Args:
            others: names that are valid, although they are not registered.

        Raises:
            ValueError: the name is not registered.
        """
        if name not in (*others, *self):
            raise ValueError(self.unknown(name, others))
        return name

    def unknown(self, name: str, others: Sequence[str] = ()) -> str:
        """Return the message for an unknown name."""
        from foundation.announced_extensions import remedy_for_unknown  # reads metadata

        return (
            f"{self.key} is {name!r}, but there is no such {self.kind}. Choose one of "
            f"{', '.join((*others, *self))}, or {remedy_for_unknown(self.kind, name)}"
        )


def resolved(entry: T | str) -> T:
    """Return an object that is given directly or by its import path.

    Raises:
        ExtensionError: the import fails.
    """
    return cast(T, imported(entry)) if isinstance(entry, str) else entry


def imported(place: str, package: str | None = None) -> Any:
    """Return the object at the import path MODULE:NAME.

    Args:
        package: the package that a leading dot of the path refers to.

    Raises:
        ExtensionError: the object cannot be imported.
    """
    module, _, attribute = place.partition(":")
    try:
        return getattr(import_module(module, package), attribute)
    except (ImportError, AttributeError) as error:
        raise ExtensionError(
            f"{place} is registered but cannot be imported: {error}. Correct its registration, "
            "or install its dependencies."
        ) from error
