"""Lists of names on the command line."""

import argparse
from collections.abc import Callable, Collection


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
