"""Validators of recipe fields with a name in a registry, and of fields with the name's options."""

from typing import Any

from pydantic import AfterValidator, ValidationInfo

from foundation.registry import Registry
from foundation.section import Section


def known_in(registry: Registry[Any]) -> AfterValidator:
    """Return the validator of a field whose value is a name in a registry."""
    return AfterValidator(registry.known)


def options_for(registry: Registry[Any], name: str) -> AfterValidator:
    """Return the validator of the options of a registered entry, which the field `name` selects.

    The validator returns the options with their defaults, as JSON values. If the name is invalid,
    it returns the options unchanged.

    Args:
        registry: for each name, the class of its options, or None if it has no options.
        name: the field that selects the entry; it precedes the options in their section.
    """

    def validate(options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if name not in info.data:
            return options
        settings: type[Section] = registry[info.data[name]] or Section
        return settings.model_validate(options).model_dump(mode="json")

    return AfterValidator(validate)
