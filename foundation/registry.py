"""Registries: what a recipe may name, built in or registered by an extension.

    SCHEDULES.register("cosine", cosine)                      the thing itself
    NETWORKS.register("tiny", "my_package.networks:tiny")     where it is, imported when it is used

A registry of torch code is filled with places, so that a process which only reads the names, such
as the driver or a data worker, imports no torch.
"""

from collections.abc import Iterator
from importlib import import_module
from typing import Any, Generic, TypeVar, cast

from foundation.errors import ExtensionError

T = TypeVar("T")


class Registry(Generic[T]):
    """Things of one kind by the names that recipes give them."""

    def __init__(self, kind: str, key: str) -> None:
        """
        Args:
            kind: what is registered, in the words of a message, such as "schedule".
            key: the key of the recipe that names one, such as trainer.schedule.type.
        """
        self.kind = kind
        self.key = key
        self._entries: dict[str, T | str] = {}

    def register(self, name: str, entry: T | str) -> None:
        """Makes a thing known by a name.

        Args:
            entry: the thing, or `MODULE:NAME`, where it is found when it is used.

        Raises:
            ExtensionError: the name stands for another thing already.
        """
        if self._entries.get(name, entry) != entry:
            raise ExtensionError(
                f"The {self.kind} {name!r} is registered twice, as {self._entries[name]!r} and as "
                f"{entry!r}. Give one of them another name."
            )
        self._entries[name] = entry

    def __getitem__(self, name: str) -> T:
        """The thing of a name.

        Raises:
            ExtensionError: there is none, or it cannot be imported from its place.
        """
        if name not in self._entries:
            raise ExtensionError(self.unknown(name))
        entry = self._entries[name]
        if isinstance(entry, str):
            entry = self._entries[name] = cast(T, imported(entry))
        return entry

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def known(self, name: str) -> str:
        """The name itself, for the validator of the field that holds it.

        Raises:
            ValueError: there is no such thing.
        """
        if name not in self:
            raise ValueError(self.unknown(name))
        return name

    def unknown(self, name: str) -> str:
        """The message that a name is not known."""
        return (
            f"{self.key} is {name!r}, and there is no such {self.kind}: there are "
            f"{', '.join(self._entries)}. Name one of them, or list the module that registers it "
            "under extensions"
        )


def imported(place: str) -> Any:
    """What stands at MODULE:NAME.

    Raises:
        ExtensionError: it cannot be imported.
    """
    module, _, attribute = place.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ExtensionError(
            f"{place} is registered and cannot be imported: {error}. Correct where it is "
            "registered, or install what it imports."
        ) from error
