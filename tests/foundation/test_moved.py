"""Former import names give the present modules, and warn."""

import importlib
import subprocess
import sys
import warnings

import pytest

from foundation.moved import MOVED, PACKAGES, present_name


@pytest.mark.parametrize(("former", "present"), MOVED.items())
def test_a_former_name_gives_the_present_module_and_warns(former, present):
    sys.modules.pop(former, None)
    with pytest.warns(FutureWarning, match=rf"{former} is {present} now"):
        found = importlib.import_module(former)
    assert found is importlib.import_module(present)
    assert found.__name__ == found.__spec__.name == present


def test_a_module_inside_a_moved_package_is_the_same_one():
    with pytest.warns(FutureWarning, match="trainer.inference.translator is transloom.inference"):
        former = importlib.import_module("trainer.inference.translator")
    assert former.Translator is importlib.import_module("transloom.inference.translator").Translator


@pytest.mark.parametrize(
    ("package", "name", "module"),
    [
        ("data_pipeline.config", "BatchingConfig", "data_pipeline.config.data"),
        ("model.config", "NetworkConfig", "model.config.transformer"),
    ],
)
def test_names_of_a_module_that_became_a_package_are_found_and_warn(package, name, module):
    with pytest.warns(FutureWarning, match=f"{package}.{name} is {module}.{name} now"):
        found = getattr(importlib.import_module(package), name)
    assert found is getattr(importlib.import_module(module), name)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = importlib.import_module(package).Nothing


def test_the_warning_names_the_line_that_imports():
    program = "import data_pipeline\nfrom data_pipeline.section import Section\n"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "<string>:2: FutureWarning: data_pipeline.section is foundation.section" in done.stderr
    assert done.returncode == 0


def test_our_own_modules_import_no_former_name():
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        for present in MOVED.values():
            importlib.import_module(present)


def test_other_names_are_left_alone():
    assert present_name("numpy.random") is None
    assert present_name("trainer.config") is None
    assert present_name("trainer.tracking.records") == "trainer.record.metrics_lines"
    assert "transloom" not in PACKAGES
    with pytest.raises(ModuleNotFoundError, match=r"trainer\.nothing"):
        importlib.import_module("trainer.nothing")
