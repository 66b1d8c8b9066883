"""JSON files that tests change."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def edited_json(path: Path) -> Iterator[Any]:
    """Yield the content of a JSON file to be changed, and write it back afterwards."""
    content = json.loads(path.read_bytes())
    yield content
    path.write_text(json.dumps(content))
