"""The whole page of `transloom serve`, opened in Node without a browser."""

from importlib.resources import files
from pathlib import Path

from support.node_program import run_node

from transloom.observe.drawing.modules import joined_modules

SCRIPT = '<script src="static/page.js" type="module"></script>'


def test_the_serving_page_passes_its_tests_in_node(tmp_path):
    page = files("transloom.inference.serving") / "page"
    html = (page / "index.html").read_text(encoding="utf-8")
    assert SCRIPT in html
    script = f'<script type="module">{joined_modules(page, "page.js")}</script>'
    file = tmp_path / "page.html"
    file.write_text(html.replace(SCRIPT, "").replace("</body>", f"{script}</body>"))
    run_node(Path(__file__).with_name("serving_page.mjs"), file)
