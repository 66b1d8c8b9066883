"""Validators of recipe fields with a name in a registry, and of fields with the name's options."""

from typing import Any

from pydantic import AfterValidator, ValidationInfo

from foundation.registry import Registry
from foundation.section import Section


def known_in(registry: Registry[Any]) -> AfterValidator:
    """Return the validator of a field whose value is a name in a registry."""
    return AfterValidator(registry.known)


def options_for(registry: Registry[Any], name: str) -> AfterValidator:
    """Return the validator of a field with the options of the entry that the field `name` names.

    It returns the options with their defaults, as JSON values. If the name is invalid, the options
    remain as they are.

    Args:
        registry: for each name, the settings that have the options, or None if there are none.
        name: the field with the name, which comes first in its section.
    """

    def validate(options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if name not in info.data:
            return options
        settings: type[Section] = registry[info.data[name]] or Section
        return settings.model_validate(options).model_dump(mode="json")

    return AfterValidator(validate)
