"""A map's cells without a browser, in Node."""

import shutil
from importlib.resources import files
from pathlib import Path

from support.node_program import run_node


def test_cells_are_heard_visited_and_chosen_where_they_are(tmp_path):
    shutil.copytree(str(files("transloom.observe.drawing")), tmp_path / "drawing")
    (tmp_path / "package.json").write_text('{"type": "module"}')
    run_node(Path(__file__).with_name("cells.mjs"), tmp_path)
