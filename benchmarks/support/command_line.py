"""Parse the command line of a benchmark: lists of names, and `--smoke` of every script.

The module needs only Python.
"""

import argparse
import shlex
import sys
from collections.abc import Callable, Collection


def benchmark_parser(
    documentation: str | None, *, json: bool = False, mirror: bool = False, overrides: bool = False
) -> argparse.ArgumentParser:
    """Return the parser of a script, whose help begins with the script's documentation.

    Args:
        json: add `--json`, which prints JSON instead of a table.
        mirror: add `--mirror`, a folder with the corpus.
        overrides: accept overrides of the recipe.
    """
    parser = argparse.ArgumentParser(
        description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if json:
        parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    if mirror:
        parser.add_argument("--mirror", help="folder with the files of Multi30k")
    if overrides:
        parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of the recipe")
    return parser


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
        from benchmarks.support.smoke import SmokeFiles  # needs more than Python

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
