"""Parse the command line of a benchmark: lists of names, and `--smoke` of every script."""

import argparse
import shlex
import sys
from collections.abc import Callable, Collection

from benchmarks.support.smoke import SmokeFiles


def benchmark_parser(documentation: str | None) -> argparse.ArgumentParser:
    """Return the parser of a script, whose help begins with the script's documentation."""
    return argparse.ArgumentParser(
        description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def parse_arguments(parser: argparse.ArgumentParser, *, smoke: str) -> argparse.Namespace:
    """Add `--smoke` to the parser, and parse the command line.

    Args:
        smoke: arguments with which the script takes only seconds and needs no peer and no network;
            the resulting figures mean nothing. They may contain names of `SmokeFiles`, such as
            `{run}`. Arguments that the user passes in addition to `--smoke` follow these arguments.
    """
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="test the script in seconds, with the smallest sizes and without peers; the "
        "resulting figures mean nothing",
    )
    words = sys.argv[1:]
    if "--smoke" in words:
        files = SmokeFiles()
        words = [word.format_map(files) for word in shlex.split(smoke)] + words
    return parser.parse_args(words)


def names_from(valid: Collection[str]) -> Callable[[str], list[str]]:
    """Return an argparse type for a list of valid names, separated by commas."""

    def names(text: str) -> list[str]:
        found = [part.strip() for part in text.split(",")]
        if unknown := [name for name in found if name not in valid]:
            raise argparse.ArgumentTypeError(
                f"unknown names: {', '.join(map(repr, unknown))}; expected one or more of "
                f"{', '.join(valid)}, separated by commas"
            )
        return list(dict.fromkeys(found))

    return names
