"""The page's JavaScript without a browser: what Node can run, and a report's joined script."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from support.machine_parts import NODE, program

from foundation.untrusted_text import visible
from transloom.observe.report import bundle

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
    shutil.copytree(str(bundle.PAGE), page)
    (page / "package.json").write_text('{"type": "module"}')
    odd = tmp_path / "odd.json"
    odd.write_text(json.dumps([[text, visible(text)] for text in ODD]))
    node(Path(__file__).with_name("page_logic.mjs"), page, odd)


def test_joined_modules_do_what_the_modules_do(tmp_path, monkeypatch):
    """Names, renamed names and whole modules that are imported; what nobody imports stays out."""
    modules = {
        "a.js": "export const one = 1;\nconst own = 5;\n"
        "export function two() {\n  return own - 3;\n}\n",
        "b.js": 'import { one,\n  two as zwei } from "./a.js";\n'
        "export class Sum {\n  all = one + zwei();\n}\n",
        "c.js": 'import * as a from "./a.js";\nimport { Sum } from "./b.js";\nconst own = 7;\n'
        "console.log(JSON.stringify([a.one, a.two(), new Sum().all, own]));\n",
        "d.js": "throw new Error();\n",
    }
    for name, text in modules.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(bundle, "PAGE", tmp_path)
    joined = tmp_path / "joined.cjs"
    joined.write_text(bundle.joined_modules("c.js"))
    assert json.loads(node(joined)) == [1, 2, 3, 7]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('import a from "./a.js";\n', "cannot be joined"),
        ("export default 3;\n", "cannot be joined"),
        ('import { b } from "./a.js";\n', "import each other: a.js → a.js"),
        ("// </script>\n", "would end its own script"),
    ],
)
def test_what_cannot_be_joined_is_refused(tmp_path, monkeypatch, text, problem):
    (tmp_path / "a.js").write_text(text)
    monkeypatch.setattr(bundle, "PAGE", tmp_path)
    with pytest.raises(AssertionError, match=problem):
        bundle.joined_modules("a.js")
