"""Errors about invalid input that all packages can raise."""


class DataError(Exception):
    """Base class of all errors about invalid input."""


class LocationError(DataError, ValueError):
    """A location that carries a credential, or whose path leads out of the folder that it names."""


class ExtensionError(DataError):
    """An extension that cannot be loaded, or a name in a recipe that no extension registers."""


class ExtensionNotFoundError(ExtensionError):
    """An extension that was not found in the searched directories.

    The constructor's arguments contain all state, so that the error can be pickled.
    """

    def __init__(self, name: str, places: str, remedy: str) -> None:
        super().__init__(name, places, remedy)
        self.name = name
        self.places = places
        self.remedy = remedy

    def __str__(self) -> str:
        return f"The extension {self.name} is not found in {self.places}. {self.remedy}"
