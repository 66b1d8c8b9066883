"""Errors of wrong input, raised below the data pipeline."""


class DataError(Exception):
    """Base of all errors of wrong input."""


class LocationError(DataError, ValueError):
    """A location that carries a credential, or leads out of the folder that it names."""


class ExtensionError(DataError):
    """An extension that cannot be loaded, or a recipe's name that no extension has registered."""


class ExtensionNotFoundError(ExtensionError):
    """An extension that none of the searched directories has.

    All state is in the arguments, so that the error can be pickled between processes.
    """

    def __init__(self, name: str, places: str, remedy: str) -> None:
        super().__init__(name, places, remedy)
        self.name = name
        self.places = places
        self.remedy = remedy

    def __str__(self) -> str:
        return f"The extension {self.name} is not found in {self.places}. {self.remedy}"
