"""The page's JavaScript modules, run in Node without a browser."""

import json
import shutil
from pathlib import Path

from support.node_program import run_node

from foundation.untrusted_text import visible
from transloom.observe.dashboard.api_models import FactsResponse
from transloom.observe.drawing.modules import DRAWING
from transloom.observe.report import report as reports

ODD = [
    "plain é 漢字 🙂",
    "\x1b]0;hi\x07 \x00\x7f\x85",
    "a\tb\nc\r",
    "‮neddih‬ \u200b\u2028\ufeff",
    "می‌خواهم a\u200cb 👩‍🚀 \u200d",
    "❤️ \ufe0f x\ufe0f\ufe0f",
    "\U000e0041\U000e0100",
]


def test_the_dashboard_pages_modules_pass_their_tests_in_node(tmp_path):
    page = tmp_path / "page"
    shutil.copytree(str(reports.PAGE), page)
    shutil.copytree(str(DRAWING), page / "drawing")
    (page / "package.json").write_text('{"type": "module"}')
    odd = tmp_path / "odd.json"
    odd.write_text(json.dumps([[text, visible(text)] for text in ODD]))
    facts = tmp_path / "facts.json"
    facts.write_text(FactsResponse().model_dump_json())
    run_node(Path(__file__).with_name("page_logic.mjs"), page, odd, facts)
