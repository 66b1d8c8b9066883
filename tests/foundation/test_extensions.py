"""Extensions: folders, hashes of their code, and cases in which nothing is imported."""

import pickle
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from support.tasks import copy_values

from cluster.recipe import Recipe
from foundation import extensions
from foundation.errors import ExtensionError
from foundation.extensions import (
    FOLDER_VARIABLE,
    Extensions,
    load_expected,
    load_extensions,
    loaded_extensions,
)

ROOT = Path(__file__).resolve().parents[2]


pytestmark = pytest.mark.usefixtures("fresh_extensions")


@pytest.fixture
def make(tmp_path):
    """Return a function that writes modules, given by path, and returns their folder."""

    def write(files, folder="extensions"):
        for name, text in files.items():
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return str(tmp_path / folder)

    return write


def forget(name):
    """Forget that an extension is loaded, as if in a new process."""
    del extensions._loaded[name]
    del sys.modules[name]


def identity(name, folder):
    return Extensions(load_extensions([name], folder).modules).identity()


def test_a_module_of_the_recipes_folder_is_imported(make):
    folder = make({"ext_here.py": "value = 1"})
    found = load_extensions(["ext_here"], folder)
    assert sys.modules["ext_here"].value == 1
    assert found == loaded_extensions(["ext_here"], folder)
    assert found.folder == folder
    assert found.identity()["extensions.ext_here"].startswith("0 sha256:")


def test_a_module_of_a_package_has_the_hash_of_the_package(make):
    folder = make({"ext_package/__init__.py": "", "ext_package/part.py": "value = 2"})
    (of_part,) = load_extensions(["ext_package.part"], folder).modules
    (of_package,) = load_extensions(["ext_package"], folder).modules
    assert sys.modules["ext_package.part"].value == 2
    assert of_part.sha256 == of_package.sha256


def test_an_extension_is_found_in_the_folder_of_the_environment_variable(make, monkeypatch):
    monkeypatch.setenv(FOLDER_VARIABLE, make({"ext_environment.py": "value = 3"}))
    load_extensions(["ext_environment"])
    assert sys.modules["ext_environment"].value == 3


def test_an_installed_extension_has_the_version_of_its_package():
    (found,) = load_extensions(["numpy"]).modules
    assert found.version == sys.modules["numpy"].__version__


def test_a_missing_extension_is_reported_with_the_remedy(make):
    folder = make({"ext_other.py": ""})
    message = (
        rf"ext_nowhere is not found in .* or {folder}\. .* extension_folder .*{FOLDER_VARIABLE}"
    )
    with pytest.raises(ExtensionError, match=message):
        load_extensions(["ext_nowhere"], folder)


@pytest.mark.parametrize(
    ("code", "reason"),
    [("import not_installed_here", "No module named"), ("1 / 0", "ZeroDivision"), ("(", "Syntax")],
)
def test_an_extension_that_cannot_be_imported_is_reported(make, code, reason):
    with pytest.raises(ExtensionError, match=rf"ext_broken cannot be imported: .*{reason}"):
        load_extensions(["ext_broken"], make({"ext_broken.py": code}))


def test_every_python_file_of_a_package_is_part_of_its_identity(make):
    package = dict.fromkeys(["ext_pack/__init__.py", "ext_pack/deep/code.py"], "")
    package["ext_pack/deep/code.py"] = "a = 1"
    folder = make(package)
    first = identity("ext_pack", folder)
    make({"ext_pack/notes.txt": "no code", "ext_other.py": "a = 2"})
    forget("ext_pack")
    assert identity("ext_pack", folder) == first
    seen = {str(first)}
    more = Path(folder, "ext_pack", "deep", "more.py")
    for change in (
        lambda: make({"ext_pack/deep/code.py": "a = 2"}),
        lambda: make({"ext_pack/deep/more.py": ""}),
        lambda: more.rename(more.parents[1] / more.name),
    ):
        change()
        forget("ext_pack")
        seen.add(str(identity("ext_pack", folder)))
    assert len(seen) == 4


def test_the_folder_does_not_change_the_identity(make):
    first = identity("ext_moved", make({"ext_moved.py": "a = 1"}, "one"))
    forget("ext_moved")
    sys.path.pop(0)
    assert identity("ext_moved", make({"ext_moved.py": "a = 1"}, "two")) == first


def test_a_run_loads_an_extension_only_if_the_hash_matches(make, monkeypatch):
    monkeypatch.setenv(FOLDER_VARIABLE, make({"ext_run.py": "value = 1"}))
    expected = identity("ext_run", None)
    assert load_expected(["ext_run"], expected).identity() == expected
    other = {"extensions.ext_run": "0 sha256:" + "0" * 64}
    for state in ("loaded", "not loaded"):
        with pytest.raises(ExtensionError, match=r"is 0 sha256:\w+ on .*, but 0 sha256:0+ "):
            load_expected(["ext_run"], other)
        if state == "loaded":
            forget("ext_run")
    assert "ext_run" not in sys.modules
    with pytest.raises(ExtensionError, match=r"but None where the run was started"):
        load_expected(["ext_run"], {})


@pytest.mark.parametrize("name", ["ext_theirs", "ext_theirs.part"])
def test_the_folder_that_a_run_names_is_printed_but_not_used(make, name):
    named = make({"ext_theirs.py": "value = 1"}, "it's theirs; true")
    with pytest.raises(ExtensionError, match="uses this folder only on request") as error:
        load_expected([name], None, named_folder=named)
    assert "ext_theirs" not in sys.modules
    told = shlex.split(str(error.value).partition("before the command: ")[2])
    assert told == [f"{FOLDER_VARIABLE}={named}"]


@pytest.mark.parametrize("named", [None, "", "/nowhere", "a\0b", "~", "x" * 5000])
def test_a_named_folder_without_the_extension_is_not_printed(named):
    with pytest.raises(ExtensionError, match=rf"that has ext_theirs: {FOLDER_VARIABLE}=FOLDER$"):
        load_expected(["ext_theirs"], None, named_folder=named)


def test_a_run_loads_its_extension_from_the_users_folder(make):
    folder = make({"ext_run.py": "value = 1"})
    expected = identity("ext_run", folder)
    forget("ext_run")
    sys.path.pop(0)
    assert load_expected(["ext_run"], expected, folder).identity() == expected


def test_loading_fails_if_the_import_gives_another_file_than_was_hashed(make):
    """Another module of the same name is already imported and first in the path."""
    sys.path.insert(0, make({"ext_twice.py": "value = 'first'"}, "first"))
    first = import_module("ext_twice")
    second = make({"ext_twice.py": "value = 'second'"}, "second")
    with pytest.raises(ExtensionError, match=r"found in .*second.* loads .*first/ext_twice\.py"):
        load_extensions(["ext_twice"], second)
    assert first.value == "first"


# ---- loading in a new process ----

READ = "import pickle, sys; found = pickle.load(sys.stdin.buffer); print(found.{})"


def in_another_process(pickled, attribute):
    """Unpickle an object in a new process that prints an attribute; return the process."""
    return subprocess.run(
        [sys.executable, "-c", READ.format(attribute)],
        input=pickled,
        capture_output=True,
        cwd=ROOT,
        check=False,
    )


@pytest.fixture
def copy_recipe(make, tmp_path):
    """Return a recipe with one more extension, which writes to a file when it is imported."""
    code = f"with open({str(tmp_path / 'imported')!r}, 'a') as file:\n    file.write('x')\n"
    values = copy_values(tmp_path / "dataset")
    sys.path.insert(0, values["extension_folder"])
    folder = make({"ext_noted.py": code})
    return values | {"extensions": ["ext_noted", "copy_task"], "extension_folder": folder}


@pytest.mark.matrix
@pytest.mark.parametrize("part", ["recipe", "training", "data_settings"])
def test_unpickling_a_recipe_in_a_new_process_loads_its_extensions(
    copy_recipe, tmp_path, monkeypatch, part
):
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'docs' / 'extensions'}")
    recipe = Recipe.of(copy_recipe)
    sent = {
        "recipe": recipe,
        "training": recipe.training(),
        "data_settings": recipe.data_settings,
    }[part]
    (tmp_path / "imported").unlink()
    answer = in_another_process(pickle.dumps(sent), "task")
    assert answer.stdout == b"copy\n", answer.stderr.decode()
    assert (tmp_path / "imported").read_text() == "x"


@pytest.mark.parametrize("part", ["recipe", "data_settings"])
def test_unpickling_imports_no_changed_extension(copy_recipe, tmp_path, monkeypatch, make, part):
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'docs' / 'extensions'}")
    recipe = Recipe.of(copy_recipe)
    pickled = pickle.dumps({"recipe": recipe, "data_settings": recipe.data_settings}[part])
    (tmp_path / "imported").unlink()
    noted = Path(copy_recipe["extension_folder"]) / "ext_noted.py"
    noted.write_text(noted.read_text() + "  # another line")
    answer = in_another_process(pickled, "task")
    assert answer.returncode
    assert b"The extension ext_noted is 0 sha256:" in answer.stderr
    assert not (tmp_path / "imported").exists()


def test_registering_a_name_twice_is_refused(make, tmp_path):
    code = (
        "from trainer.scores import SCORES, ScoreKind\n"
        "SCORES.register('length', ScoreKind({}, more_is_better=True))"
    )
    values = copy_values(tmp_path)
    values["extension_folder"] = make(
        {"ext_one.py": code.format("min"), "ext_two.py": code.format("max")}
    )
    values["extensions"] = ["ext_one", "ext_two"]
    with pytest.raises(ExtensionError, match=r"score 'length' is registered twice"):
        Recipe.of(values)
