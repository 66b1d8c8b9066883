"""The built wheel contains all packages, the command and the recipes."""

import importlib.metadata
import json
from email.parser import Parser
from pathlib import Path

import pytest
from support import wheel as built
from support.command import run_python

from cluster.own_files import overwritten_package
from cluster.packages import PACKAGES

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel without network, unpack it, and return the folder, which can be imported."""
    return built.unpacked_wheel(tmp_path_factory.mktemp("wheel"))


def run_installed(unpacked: Path, program: str) -> str:
    """Run a program that imports the unpacked wheel, in a separate folder; return its output."""
    elsewhere = unpacked.parent / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    result = run_python(program, cwd=elsewhere, PYTHONPATH=str(unpacked))
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_wheel_contains_only_translooms_packages_with_all_files(unpacked: Path) -> None:
    top_level = {path.name for path in unpacked.iterdir() if path.suffix != ".dist-info"}
    assert top_level == set(PACKAGES)
    for package in PACKAGES:
        assert (unpacked / package / "__init__.py").is_file()
        # Includes files that are not Python: pages, scripts, licences.
        assert files_of(unpacked, package) == files_of(ROOT, package)
    assert not list(unpacked.rglob("__pycache__"))


def files_of(installation: Path, package: str) -> set[Path]:
    """Return the files of a package, without recipes and compiled files."""
    return {
        path.relative_to(installation)
        for path in (installation / package).rglob("*")
        if path.is_file()
        and "__pycache__" not in path.parts
        and not path.is_relative_to(installation / "cluster" / "recipes")
    }


def test_the_console_script_is_declared(unpacked: Path) -> None:
    (distribution,) = importlib.metadata.distributions(path=[str(unpacked)])
    scripts = {entry.name: entry.value for entry in distribution.entry_points}
    assert scripts == {"transloom": "transloom.cli.entry:main"}


def test_the_licence_is_in_the_wheel(unpacked: Path) -> None:
    (folder,) = unpacked.glob("*.dist-info")
    metadata = Parser().parsestr((folder / "METADATA").read_text(encoding="utf-8"))
    assert metadata["License-Expression"] == "Apache-2.0"
    licence = (folder / "licenses" / "LICENSE").read_text(encoding="utf-8")
    assert licence == (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in licence


def test_no_other_installed_project_has_packages_of_these_names(unpacked: Path) -> None:
    """Compares all installed projects, with the wheel first in the path."""
    program = (
        "import importlib.metadata, json; "
        "print(json.dumps(importlib.metadata.packages_distributions()))"
    )
    owners = json.loads(run_installed(unpacked, program))
    names = PACKAGES
    assert {name: set(owners[name]) for name in names} == {name: {"transloom"} for name in names}


def test_a_file_that_another_project_has_overwritten_is_reported(unpacked: Path) -> None:
    assert overwritten_package(unpacked) is None
    file = unpacked / "trainer" / "__init__.py"
    content = file.read_bytes()
    file.write_text("another = True")
    problem = overwritten_package(unpacked)
    file.write_bytes(content)
    assert problem
    assert str(file) in problem
    assert "--force-reinstall" in problem


def test_the_wheel_contains_the_page_of_explain(unpacked: Path) -> None:
    program = (
        "from transloom.observe.explain.page import MODULES, STYLES, page_file\n"
        "print(page_file('page.html'), *map(page_file, STYLES), *MODULES)"
    )
    page = run_installed(unpacked, program)
    for name in (
        "palette.css",
        "page.css",
        "blueprint/figure.css",
        "time_lapse/lapse.css",
    ):
        assert (ROOT / "transloom/observe/explain" / name).read_text(encoding="utf-8") in page
    live = (
        "from importlib.resources import files; "
        "from transloom.observe.drawing.modules import joined_modules; "
        "print(joined_modules(files('transloom.observe'), 'explain/live/page/panel.js'))"
    )
    assert "function originOf(" in run_installed(unpacked, live)
    assert "{{first_screen}}" in page


def test_the_wheel_contains_the_recipes(unpacked: Path) -> None:
    in_tree = {path.name: path.read_bytes() for path in (ROOT / "recipes").glob("*.yaml")}
    in_wheel = {p.name: p.read_bytes() for p in (unpacked / "cluster" / "recipes").glob("*.yaml")}
    assert in_wheel == in_tree
    program = "from cluster.recipe import find_recipe; print(find_recipe('phrasebook'))"
    found = Path(run_installed(unpacked, program).strip())
    assert found == unpacked / "cluster" / "recipes" / "phrasebook.yaml"


def test_the_python_api_of_the_wheel_loads_a_recipe(unpacked: Path) -> None:
    program = "import transloom; print(transloom.load_recipe('phrasebook')['cluster.ranks'])"
    assert run_installed(unpacked, program) == "2\n"
