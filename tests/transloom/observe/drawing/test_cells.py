"""The cells of a heat map, tested in Node without a browser."""

import shutil
from importlib.resources import files
from pathlib import Path

from support.node_program import run_node


def test_cells_are_announced_focused_and_selected_at_their_positions(tmp_path):
    shutil.copytree(str(files("transloom.observe.drawing")), tmp_path / "drawing")
    (tmp_path / "package.json").write_text('{"type": "module"}')
    run_node(Path(__file__).with_name("cells.mjs"), tmp_path)
