"""Groups of commands: help texts that fit the terminal, and usage errors that are safe to show."""

from collections.abc import Iterator
from contextlib import contextmanager
from inspect import cleandoc
from typing import Any

from typer.core import TyperGroup

from foundation.untrusted_text import visible


class Commands(TyperGroup):
    """Typer group that wraps help texts to the terminal, and escapes arguments in usage errors.

    Arguments may contain control characters, because a shell's `*` can expand to any file name.
    """

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        command = super().get_command(ctx, cmd_name)
        if command is not None and command.help:
            command.help = _unwrapped(command.help)
        return command

    def make_context(self, *args: Any, **options: Any) -> Any:
        with _visible_usage_errors():
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        with _visible_usage_errors():
            return super().invoke(ctx)


def _unwrapped(text: str) -> str:
    """Join the lines of each paragraph of a docstring. Typer keeps these line ends otherwise."""
    paragraphs = cleandoc(text).split("\n\n")
    return "\n\n".join(p if p.startswith(" ") else p.replace("\n", " ") for p in paragraphs)


@contextmanager
def _visible_usage_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the class of usage errors has no public name in Typer
        if isinstance(getattr(error, "message", None), str):
            error.message = visible(error.message)  # type: ignore[attr-defined]
        raise


class CommandsWithDefault(Commands):
    """Group whose subcommand `list` may be left out, as in `transloom runs FOLDER`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        is_named = bool(args) and (args[0] in self.commands or args[0] == "--help")
        return super().parse_args(ctx, args if is_named else ["list", *args])
