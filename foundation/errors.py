"""Errors of wrong input, raised below the data pipeline."""


class DataError(Exception):
    """Base of all errors of wrong input."""


class LocationError(DataError, ValueError):
    """A location carries a credential, or leads out of the folder that it names."""


class ExtensionError(DataError):
    """An extension cannot be loaded, or a recipe names what none has registered."""


class ExtensionNotFoundError(ExtensionError):
    """No place that may have an extension has it.

    All state is in the arguments, so that pickle carries the error across process borders.
    """

    def __init__(self, name: str, places: str, remedy: str) -> None:
        super().__init__(name, places, remedy)
        self.name = name
        self.places = places
        self.remedy = remedy

    def __str__(self) -> str:
        return f"The extension {self.name} is not found in {self.places}. {self.remedy}"
