"""Sections of a recipe: a strict base class, and a function for each kind of field.

::

    class OptimizerConfig(Section):
        epsilon: float = identity(1e-9, "Added to the root of the second moment.", gt=0)

The kind is the *change class*, which says whether a field of an existing run may change. An
`identity` field defines the run: a different value requires a new run. A `continuable` field may
change within a run. An `execution` field changes neither the data nor the curve beyond rounding.
"""

from collections.abc import Collection, Iterable, Mapping
from functools import partial
from typing import Any, Literal, Self, TypeVar, get_args

from pydantic import Field, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from foundation.file_model import FileModel

ChangeClass = Literal["identity", "continuable", "execution"]

T = TypeVar("T")

# Marks a field without a default.
REQUIRED: Any = ...


LARGEST_NUMBER = 2**63 - 1  # largest integer of numpy and torch


class Section(FileModel):
    """A section of a recipe."""

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_no_flags(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse booleans where a number is expected.

        YAML reads `no` and `yes` as booleans, which pydantic would accept as 0 and 1.
        """
        if isinstance(value, bool) and info.field_name:
            annotation = cls.model_fields[info.field_name].annotation
            kinds = set(get_args(annotation) or (annotation,))
            if kinds & {int, float} and bool not in kinds:
                raise ValueError(f"it is {str(value).lower()}, expected a number. Write the number")
        return value

    @field_validator("*")
    @classmethod
    def _numbers_fit(cls, value: Any) -> Any:
        for number in _integers(value):
            if abs(number) > LARGEST_NUMBER:
                raise ValueError(
                    f"it has a number of {number.bit_length()} bits, but settings may have at most "
                    "63 bits. Use a smaller number"
                )
        return value

    def with_values(self, **sections: Mapping[str, Any]) -> Self:
        """Return a copy in which these fields have new values, without validation."""
        changed = {n: getattr(self, n).model_copy(update=values) for n, values in sections.items()}
        return self.model_copy(update=changed)


def _integers(value: Any) -> Iterable[int]:
    """Return the integers in a value, except those of other sections."""
    if isinstance(value, int):
        return (value,)
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return ()
    return [number for item in value for number in _integers(item)]


def _field(
    change_class: ChangeClass,
    default: T,
    description: str,
    *,
    gt: float | None = None,
    ge: float | None = None,
    lt: float | None = None,
    le: float | None = None,
    min_length: int | None = None,
    pattern: str | None = None,
    plan_only: bool = False,
) -> T:
    """Return a field of a change class; the bounds are pydantic's.

    Args:
        plan_only: True if the field affects which pairs a run trains on, and when, but no byte of
            the prepared dataset.
    """
    assert change_class == "identity" or not plan_only, description
    bounds = {"gt": gt, "ge": ge, "lt": lt, "le": le, "min_length": min_length, "pattern": pattern}
    given: dict[str, Any] = {name: bound for name, bound in bounds.items() if bound is not None}
    field: T = Field(
        default,
        description=description,
        json_schema_extra={"change_class": change_class, "plan_only": plan_only},
        **given,
    )
    return field


identity = partial(_field, "identity")
continuable = partial(_field, "continuable")
execution = partial(_field, "execution")


def change_class(field: FieldInfo) -> ChangeClass | None:
    """Return the change class of a field; None for a section, whose fields have change classes."""
    return _marks(field).get("change_class")


def decides_bytes(field: FieldInfo) -> bool:
    """Return True if this field of a data section affects the bytes of the prepared dataset."""
    return change_class(field) == "identity" and not _marks(field)["plan_only"]


def _marks(field: FieldInfo) -> dict[str, Any]:
    extra = field.json_schema_extra
    return extra if isinstance(extra, dict) else {}


def require_defaults(config: Section, what: str, names: Collection[str]) -> None:
    """Raise ValueError if a field that nothing reads is set.

    Args:
        what: the part of the recipe that does not read the fields, for the message.
        names: names of the fields that it does not read.
    """
    for name, field in type(config).model_fields.items():
        if name in names and getattr(config, name) != field.default:
            raise ValueError(
                f"{what} does not read {name}, which is {getattr(config, name)}: remove it"
            )
