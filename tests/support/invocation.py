"""Call commands of transloom in the test's process."""

import json
from typing import Any

from click.testing import Result
from typer.testing import CliRunner

from transloom.cli.app import app


def invoke(*arguments: object, given: str | bytes | None = None, code: int | None = 0) -> Result:
    """Run a command, and raise its own errors.

    Args:
        given: its standard input.
        code: its expected exit code, or None for any.
    """
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=given)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert code is None or result.exit_code == code, result.output
    return result


def lines_of(result: Result) -> list[str]:
    """Return the lines that a command prints; the command must succeed."""
    assert result.exit_code == 0, result.output
    return result.stdout.removesuffix("\n").split("\n")


def json_lines_of(result: Result) -> list[Any]:
    return [json.loads(line) for line in lines_of(result)]
