"""Draw mutants at random from all lines of the product, each with the tests that should fail.

    lines of the packages ──seed, weights──▶ sites ──an operator each──▶ SampledMutant

A line has at most one mutant. Texts, annotations, `__repr__` and logging calls are not changed. For
Python, the operators are those of cosmic-ray (comparisons, arithmetic, booleans, numbers), and the
deletion of statements and arguments. For JavaScript, they replace operators and numbers.
"""

import ast
import copy
import json
import os
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from support.quality.called_functions import recorded_callers
from support.quality.imported_files import PACKAGES

CHANGED_WEIGHT = 5.0  # weight of a line that was changed since the commit
LONGEST = ("tests/chaos/", "tests/lab/")
TEST_FILES = 8  # maximum: the mirrored test file, and others that import the module
TELLS = re.compile(r"(?:[\w.]+\.)?_?(?:warn|note|notice|print_line|announce|add_note)\(|logger\.")
# Keyword arguments whose values are only shown.
SHOWN = {"help", "metavar", "description", "doc", "title", "caption"}
COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.FloorDiv,
}
IN_JAVASCRIPT = [
    (r" < ", " <= "),
    (r" > ", " >= "),
    (r" <= ", " < "),
    (r" >= ", " > "),
    (r" === ", " !== "),
    (r" !== ", " === "),
    (r" \+ ", " - "),
    (r" - ", " + "),
    (r" \* ", " / "),
    (r" && ", " || "),
    (r" \|\| ", " && "),
    (r"\btrue\b", "false"),
    (r"\bfalse\b", "true"),
    (r"(?<=[(\[, ])(\d+)(?=[)\], ;])", r"1\1"),
    (r"^\s*[\w.]+\([^()]*\);$", ""),
]


@dataclass(frozen=True)
class SampledMutant:
    """A bug in one line.

    Attributes:
        file: the path from the repository's root.
        line: the number of the line, from 1.
        what: the code without and with the bug.
        content: the file with the bug.
    """

    file: str
    line: int
    what: str
    content: str

    @property
    def name(self) -> str:
        return f"{self.file}:{self.line}"


def sample(
    root: Path, files: Iterable[str], count: int, seed: int, changed: dict[str, set[int]]
) -> list[SampledMutant]:
    """Draw mutants of some files, sorted by file and line.

    Args:
        root: the repository's root.
        files: Python or JavaScript files.
        count: the number of mutants, or fewer if there are fewer lines with an operator.
        changed: the lines that were changed since a commit, by file; they are drawn more often.
    """
    chance = random.Random(seed)
    keys = []
    for file in sorted(files):
        edits = _edits_of((root / file).read_text(), file)
        for line in sorted({edit.line for edit in edits}):
            weight = CHANGED_WEIGHT if line in changed.get(file, ()) else 1.0
            # Efraimidis and Spirakis 2006: the largest keys are a weighted sample.
            keys.append((chance.random() ** (1 / weight), file, line))
    drawn: list[SampledMutant] = []
    for _, file, line in sorted(keys, reverse=True):
        if len(drawn) < count and (mutant := _mutant(root, file, line, chance)):
            drawn.append(mutant)
    return sorted(drawn, key=lambda mutant: (mutant.file, mutant.line))


def _mutant(root: Path, file: str, line: int, chance: random.Random) -> SampledMutant | None:
    """Return a mutant of a line; None if no operator changes it to other valid code."""
    text = (root / file).read_text()
    edits = [edit for edit in _edits_of(text, file) if edit.line == line]
    for edit in chance.sample(edits, len(edits)):
        content = edit.applied(text)
        if content != text and (file.endswith(".js") or _is_python(content)):
            return SampledMutant(file, line, edit.what(text), content)
    return None


class Edit(NamedTuple):
    """Replacement of a range of a file: columns are in bytes, lines from 1."""

    line: int
    column: int
    end_line: int
    end_column: int
    new: str

    def applied(self, text: str) -> str:
        lines = text.encode().split(b"\n")
        first, last = lines[self.line - 1], lines[self.end_line - 1]
        changed = first[: self.column] + self.new.encode() + last[self.end_column :]
        return b"\n".join([*lines[: self.line - 1], changed, *lines[self.end_line :]]).decode()

    def what(self, text: str) -> str:
        """Return the code before and after the edit, without indents."""
        lines = text.encode().split(b"\n")[self.line - 1 : self.end_line]
        lines[-1] = lines[-1][: self.end_column]
        old = " ".join(b"\n".join(lines)[self.column :].decode().split())
        return f"{old}  ⟶  {self.new.strip() or '(nothing)'}"


def _edits_of(text: str, file: str) -> list[Edit]:
    return _javascript(text) if file.endswith(".js") else _python(text)


def _javascript(text: str) -> list[Edit]:
    edits = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.lstrip().startswith(("//", "*", "import ", "/*")):
            continue
        code = re.sub(r'"[^"]*"|`[^`]*`', lambda quoted: "_" * len(quoted[0]), line)
        for pattern, new in IN_JAVASCRIPT:
            for place in re.finditer(pattern, code):
                start, end = (len(line[:at].encode()) for at in place.span())
                edits.append(Edit(number, start, number, end, place.expand(new)))
    return edits


def _python(text: str) -> list[Edit]:
    return [
        Edit(node.lineno, node.col_offset, node.end_lineno or 0, node.end_col_offset or 0, new)
        for found in _mutable(ast.parse(text))
        for node, new in _replacements(found)
    ]


def _replacements(node: ast.expr | ast.stmt) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    """Yield each replacement that an operator makes in a node: the replaced node, and new code."""
    match node:
        case ast.Compare(ops=[operator]) if type(operator) in COMPARED:
            yield node, f"({_with(node, ops=[COMPARED[type(operator)]()])})"
        case ast.BinOp(op=operator) if type(operator) in COMPUTED and not _is_text(node):
            yield node, f"({_with(node, op=COMPUTED[type(operator)]())})"
        case ast.BoolOp(op=operator):
            yield node, f"({_with(node, op=ast.Or() if type(operator) is ast.And else ast.And())})"
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield node, f"({ast.unparse(operand)})"
        case ast.Constant(value=bool(value)):
            yield node, str(not value)
        case ast.Constant(value=int() | float() as value):
            yield node, repr(value + 1)
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            yield test, f"(not ({ast.unparse(test)}))"
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Raise() | ast.Continue():
            yield node, "pass"
        case ast.Call(keywords=keywords):
            for one in keywords:
                if one.arg and one.arg not in SHOWN:
                    yield node, _with(node, keywords=[k for k in keywords if k is not one])


def _is_text(node: ast.BinOp) -> bool:
    sides = (node.left, node.right)
    return any(
        isinstance(side, ast.JoinedStr)
        or (isinstance(side, ast.Constant) and isinstance(side.value, str | bytes))
        for side in sides
    )


def _mutable(node: ast.AST) -> Iterator[ast.expr | ast.stmt]:
    """Yield the direct children of a node that may be changed."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or isinstance(child, ast.JoinedStr | ast.ImportFrom):
                continue
            if isinstance(child, ast.FunctionDef) and child.name == "__repr__":
                continue
            if isinstance(child, ast.Expr | ast.Call) and TELLS.match(ast.unparse(child)):
                continue
            if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                continue
            if isinstance(child, ast.expr | ast.stmt):
                yield child
            yield from _mutable(child)


def _with(node: ast.AST, **fields: object) -> str:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return ast.unparse(changed)


def _is_python(content: str) -> bool:
    try:
        ast.parse(content)
    except SyntaxError:
        return False
    return True


def related_tests(root: Path, file: str, line: int = 0, target: str = "make test") -> list[str]:
    """Return the test files that should detect a bug in a file: the mirrored one, then others.

    The others are those that call the function, if calls are recorded (see `called_functions`), and
    those that import the file. If they are few, the tests of modules that import the file, directly
    or not, follow.

    Args:
        line: the number of the bug's line, from 1.
        target: only files with tests of this target are returned.
    """
    sources = _texts(root, *PACKAGES, "tests/support")
    modules, found = {file}, _importers(root, file, target)
    calls = recorded_callers(root).get(f"{file}:{_function_at(root / file, line)}", set())
    callers = [
        test for test in _nearest_first(calls, f"tests/{file}") if test in _tests_of(root, target)
    ]
    found = list(dict.fromkeys([*found[:1], *callers, *found]))
    while len(found) < TEST_FILES:
        mentions = [_mention(module) for module in modules]
        users = {
            path for path, text in sources.items() if any(each.search(text) for each in mentions)
        } - modules
        if not users:
            break
        further = {test for user in users for test in _importers(root, user, target)} - {*found}
        found += _nearest_first(further, f"tests/{file}")
        modules |= users
    return found[:TEST_FILES]


def _function_at(path: Path, line: int) -> str:
    """Return the qualified name of the innermost function that contains a line of Python, or ""."""

    def inside(body: ast.AST, prefix: str) -> str:
        for node in ast.iter_child_nodes(body):
            if not isinstance(node, ast.stmt) or not node.lineno <= line <= (node.end_lineno or 0):
                continue
            if isinstance(node, ast.ClassDef):
                return inside(node, f"{prefix}{node.name}.")
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                name = f"{prefix}{node.name}"
                return inside(node, f"{name}.<locals>.") or name
            return inside(node, prefix)
        return ""

    return inside(ast.parse(path.read_text()), "") if line and path.suffix == ".py" else ""


def _importers(root: Path, file: str, target: str) -> list[str]:
    path, tests, wanted = Path(file), _tests_of(root, target), _mention(file)
    mirrored = Path("tests", path.parent, f"test_{path.stem.strip('_')}.py").as_posix()
    others = [test for test, text in tests.items() if test != mirrored and wanted.search(text)]
    return [mirrored] * (mirrored in tests) + _nearest_first(others, mirrored)


def _nearest_first(tests: Iterable[str], file: str) -> list[str]:
    """Sort test files by the depth of the folder that they share with a file, then by name."""
    return sorted(tests, key=lambda test: (-len(os.path.commonpath([test, file])), test))


def _mention(file: str) -> re.Pattern[str]:
    """Return a regular expression for a text that imports a file, runs it, or opens its page."""
    path = Path(file)
    if path.suffix == ".js":
        return re.compile(rf"[\"'/]({re.escape(path.name)}|page_in_node\.mjs)\b")
    module = re.escape(".".join(path.with_suffix("").parts).removesuffix(".__init__"))
    parent, _, name = module.rpartition(r"\.")
    imported = rf"\b{module}\b|from {parent} import .*\b{name}\b"
    if parent == r"transloom\.cli":  # import_weights has the command "import"
        first, *rest = name.split("_")
        imported += rf"|[(\[]\s*\"{first}({''.join(f'-{word}' for word in rest)})?\""
    return re.compile(imported)


@cache
def _tests_of(root: Path, target: str) -> dict[str, str]:
    tests, tiers = _texts(root, "tests"), root / "tests" / "tiers.json"
    listed = json.loads(tiers.read_text())[target] if tiers.exists() else tests
    return {test: text for test, text in tests.items() if test in listed}


@cache
def _texts(root: Path, *folders: str) -> dict[str, str]:
    """Return the content of Python and JavaScript files, but not that of the longest tests.

    The content of a test includes that of the programs for Node that it names.
    """
    return {
        name: path.read_text() + "".join(map(Path.read_text, _programs_of(path)))
        for folder in folders
        for path in sorted((root / folder).rglob("*.[jp][sy]"))
        if not (name := path.relative_to(root).as_posix()).startswith(LONGEST)
        and (folder != "tests" or path.name.startswith("test_"))
    }


def _programs_of(test: Path) -> list[Path]:
    named = set(re.findall(r'"(\w+\.mjs)"', test.read_text()))
    return [path for path in sorted(test.parent.glob("*.mjs")) if path.name in named]
