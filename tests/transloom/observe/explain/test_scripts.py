"""The page's scripts share one scope."""

import re
from collections import Counter
from importlib.resources import files

DECLARED = re.compile(r"^(?:(?:async )?function|const|let|class) (\w+)", re.MULTILINE)


def test_no_two_scripts_declare_the_same_name():
    scripts = [
        path for path in _all_files(files("transloom.observe.explain")) if path.name.endswith(".js")
    ]
    assert len(scripts) > 20
    names = Counter(name for path in scripts for name in DECLARED.findall(path.read_text("utf-8")))
    assert [name for name, times in names.items() if times > 1] == []


def _all_files(folder):
    for path in folder.iterdir():
        if path.is_dir():
            yield from _all_files(path)
        else:
            yield path
