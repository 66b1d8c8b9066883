"""What scripts that draw share: curves as JSON from standard input, a PNG file as the argument."""

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
    """Draws what standard input has into the file that is named."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("picture", type=Path)
    save(draw(json.load(sys.stdin)), parser.parse_args().picture)


def save(figure: Figure, picture: Path) -> None:
    picture.parent.mkdir(parents=True, exist_ok=True)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=110)
    # A palette is enough for it, at a third of the size.
    Image.open(drawn).convert("RGB").quantize(64).save(picture, optimize=True)
