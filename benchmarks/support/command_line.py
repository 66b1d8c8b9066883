"""The command line of a benchmark: lists of names, and `--smoke`, which every script has."""

import argparse
import shlex
import sys
from collections.abc import Callable, Collection

from benchmarks.support.smoke import SmokeFiles


def parse_arguments(parser: argparse.ArgumentParser, *, smoke: str) -> argparse.Namespace:
    """Parse the command line, to which `--smoke` is added.

    Args:
        smoke: the arguments with which the script takes seconds and needs no peer and no network;
            the figures then mean nothing. It may name `SmokeFiles`, such as `{run}`. What the user
            gives besides `--smoke` follows these arguments.
    """
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="show that the script works, with the smallest sizes and without peers",
    )
    words = sys.argv[1:]
    if "--smoke" in words:
        files = SmokeFiles()
        words = [word.format_map(files) for word in shlex.split(smoke)] + words
    return parser.parse_args(words)


def names_from(valid: Collection[str]) -> Callable[[str], list[str]]:
    """Return an argparse type for valid names with commas between them."""

    def names(text: str) -> list[str]:
        found = [part.strip() for part in text.split(",")]
        if unknown := [name for name in found if name not in valid]:
            raise argparse.ArgumentTypeError(
                f"unknown: {', '.join(map(repr, unknown))}; give one or more of "
                f"{', '.join(valid)}, separated by commas"
            )
        return list(dict.fromkeys(found))

    return names
