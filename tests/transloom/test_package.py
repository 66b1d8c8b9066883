"""`import transloom` imports nothing except the standard library."""

import json
import sys

import pytest
from support.command import run_python
from test_houserules import ROOT


def test_importing_the_python_api_imports_the_standard_library_only():
    program = """
import json, sys
before = set(sys.modules)
import transloom
transloom.Translator
print(json.dumps(sorted(name.partition(".")[0] for name in set(sys.modules) - before)))
"""
    done = run_python(program)
    assert set(json.loads(done.stdout)) - sys.stdlib_module_names == {"transloom"}


def test_no_module_has_the_name_of_the_package():
    """A module transloom.py would hide the package, or the reverse."""
    assert not (ROOT / "transloom.py").exists()


def test_the_package_exports_exactly_the_names_of_the_api():
    import transloom
    from transloom import api

    own = {
        name
        for name, value in vars(api).items()
        if getattr(value, "__module__", None) == api.__name__ and not name.startswith("_")
    }
    assert own == set(transloom.__all__)
    assert all(getattr(transloom, name) is getattr(api, name) for name in own)
    assert own <= set(dir(transloom))
    with pytest.raises(AttributeError, match="no attribute 'serve'"):
        _ = transloom.serve
