"""The page's JavaScript without a browser: what Node can run, and a report's joined script."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from support.machine_parts import NODE, program

from foundation.untrusted_text import visible
from transloom.observe.dashboard.api_models import FactsResponse
from transloom.observe.drawing.modules import DRAWING
from transloom.observe.report import report as reports

pytestmark = pytest.mark.needs("node")

ODD = [
    "plain é 漢字 🙂",
    "\x1b]0;hi\x07 \x00\x7f\x85",
    "a\tb\nc\r",
    "‮neddih‬ \u200b\u2028\ufeff",
    "می‌خواهم a\u200cb 👩‍🚀 \u200d",
    "❤️ \ufe0f x\ufe0f\ufe0f",
    "\U000e0041\U000e0100",
]


def node(*arguments):
    """Run Node, and return what it prints."""
    result = subprocess.run(
        [str(program(*NODE)), *map(str, arguments)], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_pages_logic(tmp_path):
    page = tmp_path / "page"
    shutil.copytree(str(reports.PAGE), page)
    shutil.copytree(str(DRAWING), page / "drawing")
    (page / "package.json").write_text('{"type": "module"}')
    odd = tmp_path / "odd.json"
    odd.write_text(json.dumps([[text, visible(text)] for text in ODD]))
    facts = tmp_path / "facts.json"
    facts.write_text(FactsResponse().model_dump_json())
    node(Path(__file__).with_name("page_logic.mjs"), page, odd, facts)
