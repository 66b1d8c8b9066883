"""What Typer complains about: arguments that a command does not take."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from typer.core import TyperGroup

from foundation.strangers_text import visible


class Commands(TyperGroup):
    """Typer's group, whose complaints show the arguments visibly: a shell's `*` finds any name."""

    def make_context(self, *args: Any, **options: Any) -> Any:
        with _visible_complaints():
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        with _visible_complaints():
            return super().invoke(ctx)


@contextmanager
def _visible_complaints() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the class of usage errors has no public name in Typer
        if isinstance(getattr(error, "message", None), str):
            error.message = visible(error.message)  # type: ignore[attr-defined]
        raise
