"""Validators of recipe fields with a name in a registry, and of fields with the name's options."""

from typing import Any

from pydantic import AfterValidator, ValidationInfo

from foundation.registry import Registry
from foundation.section import options_of


def known_in(registry: Registry[Any]) -> AfterValidator:
    """Return the validator of a field whose value is a name in a registry."""
    return AfterValidator(registry.known)


def options_for(registry: Registry[Any], name: str) -> AfterValidator:
    """Return the validator of a field with the options of the entry that the field `name` names."""

    def validate(options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        return options_of(registry, info, name, options)

    return AfterValidator(validate)
