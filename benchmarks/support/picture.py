"""Draw curves in a script: read them as JSON from standard input, and write a PNG file."""

import argparse
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image


def main(description: str, draw: Callable[[Any], Figure]) -> None:
    """Draw the curves from standard input, and write the PNG file that the command line names."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("picture", type=Path)
    save(draw(json.load(sys.stdin)), parser.parse_args().picture)


def save(figure: Figure, picture: Path) -> None:
    picture.parent.mkdir(parents=True, exist_ok=True)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=110)
    # A palette of 64 colours is sufficient, and reduces the file to a third of its size.
    Image.open(drawn).convert("RGB").quantize(64).save(picture, optimize=True)
