"""Rules for the code base that import-linter cannot check."""

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
import yaml
from support.quality.idle_tests import asserting_functions, idle_tests
from support.quality.measured_durations import asserted_durations

from cluster.packages import PACKAGES

ROOT = Path(__file__).resolve().parents[1]
API = ROOT / "transloom/api.py"  # runs in users' programs and imports no other module of transloom
SOURCES = [
    path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")) if path != API
]


@pytest.mark.parametrize(
    ("library", "owner"),
    [
        ("deepspeed", ("trainer/zero/", "trainer/verify_zero/zero_cell.py")),
        ("wandb", "trainer/tracking/wandb_tracker.py"),
        ("webdataset", "data_pipeline/dataset/samples.py"),
        (
            "prometheus_client",
            ("transloom/cli/metrics.py", "transloom/inference/serving/metrics.py"),
        ),
        ("tensorboard", "transloom/observe/exports.py"),
        ("ctranslate2", "transloom/inference/ctranslate2/library.py"),
        ("jinja2", "transloom/inference/serving/openapi.py"),
    ],
)
def test_only_the_owner_imports_a_library(library, owner):
    pattern = re.compile(rf"^\s*(import|from) {library}\b", re.MULTILINE)
    users = [str(p.relative_to(ROOT)) for p in SOURCES if pattern.search(p.read_text())]
    assert users
    assert all(user.startswith(owner) for user in users)


def test_only_one_file_imports_private_modules_of_ray():
    private = re.compile(r"^\s*(?:from|import) ray\.(?:_|core|serve\._)", re.MULTILINE)
    users = [str(p.relative_to(ROOT)) for p in SOURCES if private.search(p.read_text())]
    assert users == ["cluster/ray/private.py"]


def test_ruff_checks_every_source_file():
    # By default, ruff skips folders with names such as build and dist.
    command = [sys.executable, "-m", "ruff", "check", "--show-files", *PACKAGES]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    checked = {Path(line) for line in shown.splitlines()}
    assert [path for path in SOURCES if path not in checked] == []


PRINTER = "foundation/terminal.py"  # escapes untrusted text and never treats it as markup.
# Runs alone on another machine and prints to the log of a job, whose readers escape the text.
SENT_ELSEWHERE = "cluster/ray/head_probe.py"
# Imports and calls that produce text for a terminal, a log or a page, allowed only in PRINTER.
ONLY_THERE = {
    "rich.console.Console",
    "rich.text.Text",
    "rich.markup.escape",
    "rich.markup.render",
    "rich.progress.TextColumn",
    "rich.print",
    "rich.get_console",
    "rich.ansi.AnsiDecoder",
    "rich.logging.RichHandler",
    "print",
    "pprint.pprint",
    "typer.echo",
    "typer.secho",
    "click.echo",
    "traceback.print_exc",
    "traceback.print_exception",
    "traceback.print_stack",
    "sys.stdout.write",
    "sys.stderr.write",
}
ELSEWHERE = {
    "html.escape": ("transloom/observe/explain/markup.py",),
    "logging.getLogger": ("foundation/untrusted_text.py",),  # or to set levels and handlers
    "os.write": ("cluster/supervision/command_signals.py",),  # in a signal handler: a fixed text
}


@cache
def names_used(source):
    """Return the full names that a module imports or calls, each with its line."""
    return list(_names_used(source))


def _names_used(source):
    tree = ast.parse(source)
    imported = {}
    silent = set()  # getLogger(...).setLevel(...) and getLogger(...).handlers print nothing
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                imported[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                yield f"{node.module}.{alias.name}", node.lineno
        elif isinstance(node, ast.Attribute) and node.attr in ("setLevel", "handlers"):
            silent.add(node.value)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node not in silent:
            first, _, rest = ast.unparse(node.func).partition(".")
            yield f"{imported.get(first, first)}{'.' if rest else ''}{rest}", node.lineno
            if imported.get(first) == "rich.progress.Progress" and not node.args:
                yield "Progress without columns", node.lineno  # the default columns use markup
            for keyword in node.keywords:
                if keyword.arg == "markup" and ast.unparse(keyword.value) != "False":
                    yield "markup", node.lineno


def printed_elsewhere(name, source):
    allowed = name in (PRINTER, SENT_ELSEWHERE)
    forbidden = set() if allowed else {*ONLY_THERE, "markup", "Progress without columns"}
    forbidden |= {call for call, owners in ELSEWHERE.items() if name not in owners}
    return [f"{name}:{line}: {used}" for used, line in names_used(source) if used in forbidden]


def test_only_one_file_prints():
    files = {str(p.relative_to(ROOT)): p.read_text() for p in SOURCES}
    assert [found for n, text in files.items() for found in printed_elsewhere(n, text)] == []
    used = {name for text in files.values() for name, _ in names_used(text)}
    assert {"rich.console.Console", "print", *ELSEWHERE} <= used


@pytest.mark.parametrize(
    "line",
    [
        "print(name)",
        "from rich.console import Console",
        "import rich.console\nrich.console.Console()",
        "from rich.text import Text as T",
        "from rich import print",
        "console.print(name, markup=True)",
        "import sys\nsys.stderr.write(name)",
        "import os\nos.write(2, name)",
        "import logging\nlogging.getLogger('a').warning(name)",
        "from logging import getLogger",
        "import logging as log\nlogger = log.getLogger('a')",
        "import html\nhtml.escape(name)",
        "from rich.progress import Progress\nProgress(console=console)",
        "import typer\ntyper.echo(name)",
    ],
)
def test_the_rule_about_printing_finds_violations(line):
    assert printed_elsewhere("cluster/other.py", line)


@pytest.mark.parametrize(
    "line",
    [
        "console.print(name)",
        "from rich.console import Group",
        "import logging\nlogging.getLogger('wandb').setLevel(logging.ERROR)",
        "from rich.progress import Progress\nProgress(Words('a'), console=console)",
        "fingerprint(engine)",
    ],
)
def test_the_rule_about_printing_accepts_other_code(line):
    assert printed_elsewhere("cluster/other.py", line) == []


def test_no_string_of_a_lower_package_names_a_module_of_transloom():
    """import-linter checks imports, but a string could also start a module of transloom."""
    module = re.compile(r"\btransloom\.(?:api|cli|commands|inference|observe|web)\b")
    named = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in SOURCES
        if path.relative_to(ROOT).parts[0] != "transloom"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and module.search(node.value)
    ]
    assert named == []


def test_no_source_unpickles_or_evaluates_data():
    forbidden = re.compile(
        r"pickle\.loads?\(|weights_only=False|yaml\.load\(|trust_remote_code|allow_pickle=True"
        r"|shell=True|(?<![.\w])(eval|exec)\("
    )
    found = [
        f"{p.relative_to(ROOT)}: {m.group()}"
        for p in SOURCES
        for m in forbidden.finditer(p.read_text())
    ]
    assert found == []


def test_recipes_of_runs_are_read_as_untrusted():
    """tests/transloom/cli/test_untrusted_runs.py tests that commands run no code of a run."""
    trusting = re.compile(r"\bload_recipe\([^)]*\.recipe\b|\w*Recipe\.of\b|\bload_extensions\(")
    users = {str(p.relative_to(ROOT)) for p in SOURCES if trusting.search(p.read_text())}
    assert users == {
        "cluster/recipe.py",  # recipes that the user names
        "transloom/observe/replay/replay_plan.py",  # values of a recipe that has been read
        "foundation/extensions.py",
        "trainer/recipe.py",
    }


def test_no_test_undoes_the_patches_of_its_fixtures():
    """`undo` also ends the patches of fixtures, which threads of the test may need.

    Tests end single patches by `monkeypatch.context()`.
    """
    undo = re.compile(r"\bmonkeypatch\.undo\(")
    tests = sorted((ROOT / "tests").rglob("*.py"))
    assert tests
    assert [str(path.relative_to(ROOT)) for path in tests if undo.search(path.read_text())] == []


def test_no_file_contains_a_path_of_the_machine_that_wrote_it():
    """The rule covers text files and binary files."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    folder = re.compile(rb"(?<![\w.>}])/(work|root|home|Users)/\w")
    recorded = re.compile(rb"(?<![\w.>}])/tmp/\w")
    found = []
    for name in filter(None, names.stdout.decode().split("\0")):
        content = (ROOT / name).read_bytes()
        if folder.search(content) or (is_recorded(name) and recorded.search(content)):
            found.append(name)
    assert found == []


def is_recorded(name):
    return name.startswith("tests/fixtures/") and not name.endswith(".py")


def test_files_that_a_page_or_a_source_file_names_exist():
    folders = "|".join((*PACKAGES, "benchmarks", "docs", "scripts", "tests"))
    named = re.compile(rf"(?<![\w./])(?:{folders})/[\w./-]+\.(?:md|py)\b")
    pages = [ROOT / "docs/explanation/architecture.md", ROOT / "SECURITY.md"]
    names = {name for path in (*SOURCES, *pages) for name in named.findall(path.read_text())}
    assert len(names) > 50
    assert [name for name in sorted(names) if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("page", ["README.md", "docs/reference/features.md"])
def test_commands_named_in_a_page_exist(page):
    from transloom.cli.app import app

    commands = app.registered_commands
    known = {c.name or c.callback.__name__.replace("_", "-") for c in commands}
    known |= {group.name for group in app.registered_groups}
    text = (ROOT / page).read_text()
    used = set(re.findall(r"transloom ([a-z][a-z-]*)", text)) - {"trains"}
    assert len(used) > 6
    assert used <= known


def test_the_readme_has_at_most_700_words():
    assert len((ROOT / "README.md").read_text().split()) <= 700


@pytest.mark.parametrize(
    "page", ["README.md", "docs/reference/features.md", "docs/reference/recipes.md"]
)
def test_relative_links_of_a_page_have_existing_targets(page):
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", (ROOT / page).read_text()):
        name, _, heading = link.partition("#")
        if name.startswith("https:"):
            continue
        file = (ROOT / page).parent / name if name else ROOT / page
        if not file.exists() or (heading and heading not in anchors(file.read_text())):
            broken.append(link)
    assert broken == []


def anchors(text):
    """Return the anchors that GitHub gives to a page's headings."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_recipe_is_listed_in_the_recipes_page():
    text = (ROOT / "docs/reference/recipes.md").read_text()
    assert {f"`{path.stem}`" for path in (ROOT / "recipes").glob("*.yaml")} <= set(
        re.findall(r"`[a-z0-9-]+`", text)
    )


# Given only the name, an installer would query a package index, which has no transloom.
BY_NAME = re.compile(
    r"\b(?:pipx? install|(?:uv|conda|poetry) (?:tool |pip )?(?:add|install|run)|uvx)"
    r"(?:\W|\bf\W|\s-+\w[\w-]*)*transloom(?![\w-])"
)


def test_no_text_installs_transloom_by_its_name():
    """docs/release.md says what changes when transloom is published."""
    pages = [ROOT / "README.md", ROOT / "SECURITY.md", ROOT / "CONTRIBUTING.md", ROOT / "Makefile"]
    folders = ("docs", "scripts", "deploy", "recipes")
    pages += [path for folder in folders for path in (ROOT / folder).rglob("*")]
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in [*pages, *SOURCES, API]
        if path.is_file() and path.suffix not in (".png", ".pyc")
        for match in BY_NAME.finditer(path.read_text(encoding="utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "pip install transloom",
        "pip install --upgrade 'transloom[parquet]'",
        "Run `python -m pip install transloom==0.1.0`.",
        '"Install it with pip install "\n    f"\'transloom[{scheme}]\'"',
        "uv pip install transloom",
        "uvx transloom demo",
        "pipx install transloom",
    ],
)
def test_the_rule_about_installation_by_name_finds_violations(text):
    assert BY_NAME.search(text)


@pytest.mark.parametrize(
    "text",
    [
        "pip install -r transloom-0.1.0-cpu.txt",
        "pip install --no-deps dist/transloom-0.1.0-py3-none-any.whl",
        "pip install 'pyarrow>=22,<27', and transloom reads it",
        "pip install -e .",
    ],
)
def test_the_rule_about_installation_by_name_allows_files(text):
    assert not BY_NAME.search(text)


# Files that may assert durations: promised ones, or lower bounds.
DURATIONS_ASSERTED = {
    "tests/data_pipeline/storage/test_object_store_faults.py",  # time limits with a margin of 30 s
    "tests/test_fault_proxy.py",  # a lower bound of the proxy's delay
    "tests/transloom/inference/serving/test_requests_together.py",  # 20 s, not over 60 s
    "tests/trainer/process/test_step_timer.py",  # a lower bound, on a GPU
}


def test_no_test_asserts_how_long_something_takes():
    """Such a test fails on a busy machine. Count calls, compare an order, or pass a clock."""
    files = (ROOT / "tests").rglob("test_*.py")
    found = {
        path.relative_to(ROOT).as_posix(): lines
        for path in files
        if (lines := asserted_durations(path.read_text()))
    }
    assert {name: lines for name, lines in found.items() if name not in DURATIONS_ASSERTED} == {}
    assert found.keys() == DURATIONS_ASSERTED


@pytest.mark.parametrize(
    ("body", "is_found"),
    [
        ("start = time.monotonic(); call(); assert time.monotonic() - start < 3", True),
        ("start = now(); took = time.perf_counter() - start; assert 1 < took <= 3", True),
        ("deadline = time.monotonic() + 3; assert call(deadline) < 3", False),
        ("assert len(calls) < 3", False),
        ("assert abs(line.time - time.time()) < 60", False),
    ],
)
def test_the_rule_about_durations_finds_violations(body, is_found):
    assert bool(asserted_durations(f"def test():\n    {body}")) is is_found


# Tests that only show that nothing is raised. Other tests in their files cover the errors.
RAISE_NOTHING = {
    "test_a_file_that_the_user_names_and_owns_is_used",
    "test_damage_never_raises_anything_else",
    "test_hostile_texts_are_cleaned_in_linear_time",
}


def test_every_test_can_fail():
    sources = {path: path.read_text() for path in (ROOT / "tests").rglob("*.py")}
    known = asserting_functions(sources.values())
    idle = [
        name
        for path, source in sources.items()
        if path.name.startswith("test_")
        for name in idle_tests(source, known)
    ]
    assert sorted(idle) == sorted(RAISE_NOTHING)


@pytest.mark.parametrize(
    ("body", "is_idle"),
    [
        ("call()", True),
        ("for one in found(): assert one", True),
        ("if found(): assert one", True),
        ("def inner(): assert one", True),
        ("for one in 1, 2: assert one", False),
        ("for one in given: assert one", False),
        ("wanted = [1, 2]\n    for a, b in zip(found(), wanted): assert a == b", False),
        ("checked(1)", False),
        ("with pytest.raises(ValueError): call()", False),
    ],
)
def test_the_rule_about_tests_that_cannot_fail_finds_violations(body, is_idle):
    source = f"def checked(x): assert x\ndef test(given):\n    {body}"
    assert bool(idle_tests(source, asserting_functions([source]))) is is_idle


def test_the_citation_file_matches_the_project_metadata():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    required = {"cff-version", "message", "title", "authors"}  # by the Citation File Format 1.2.0
    assert required <= citation.keys()
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    for key in ("version", "license"):
        assert citation[key] == project[key], key
    assert citation["title"] == project["name"]
    assert all(author["name"] for author in citation["authors"])
    assert citation["abstract"].strip()
