"""Former import names give the present modules, and warn."""

import importlib
import subprocess
import sys
import warnings

import pytest

from foundation.moved import MOVED, PACKAGES, present_name


@pytest.mark.parametrize(("former", "present"), MOVED.items())
def test_a_former_name_gives_the_present_module_and_warns(former, present):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # packages that were moved warn, too
        importlib.import_module(former.rpartition(".")[0])
    sys.modules.pop(former, None)
    with pytest.warns(FutureWarning, match=rf"{former} has moved to {present}"):
        found = importlib.import_module(former)
    assert found is importlib.import_module(present)
    assert found.__name__ == found.__spec__.name == present


def test_a_module_inside_a_moved_package_is_the_same_one():
    with pytest.warns(
        FutureWarning, match="trainer.inference.translator has moved to transloom.inference"
    ):
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
    with pytest.warns(FutureWarning, match=f"{package}.{name} has moved to {module}.{name}"):
        found = getattr(importlib.import_module(package), name)
    assert found is getattr(importlib.import_module(module), name)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = importlib.import_module(package).Nothing


@pytest.mark.parametrize(
    ("module", "former", "present"),
    [
        ("foundation.wording", "listed", "join_items"),
        ("foundation.file_model", "Written", "FileModel"),
    ],
)
def test_former_names_within_a_module_are_found_and_warn(module, former, present):
    found = importlib.import_module(module)
    with pytest.warns(FutureWarning, match=f"{module}.{former} has moved to {module}.{present}"):
        assert getattr(found, former) is getattr(found, present)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = found.nothing


def test_the_warning_names_the_line_that_imports():
    program = "import data_pipeline\nfrom data_pipeline.section import Section\n"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (
        "<string>:2: FutureWarning: data_pipeline.section has moved to foundation.section"
        in done.stderr
    )
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
