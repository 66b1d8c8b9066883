"""Find tests that cannot fail, because none of their assertions always runs."""

import ast
from collections.abc import Iterable, Iterator

Function = ast.FunctionDef | ast.AsyncFunctionDef

# Calls that raise an error if their expectation is not met.
_EXPECTING = ("raises", "warns", "fail", "expect", "assert_close", "wait_until", "wait_for")
_EXPECTING_PREFIXES = ("assert_", "check_", "expect_", "require_")


def asserting_functions(sources: Iterable[str]) -> set[str]:
    """Return the names of functions that assert something, directly or indirectly."""
    functions = [
        node
        for source in sources
        for node in ast.walk(ast.parse(source))
        if isinstance(node, Function) and not node.name.startswith("test")
    ]
    known: set[str] = set()
    while found := {one.name for one in functions if _asserts(one, known)} - known:
        known |= found
    return known


def idle_tests(source: str, known: set[str]) -> list[str]:
    """Return the names of the tests of a module that pass whatever the tested code does.

    Args:
        known: names of functions that assert something.
    """
    return [
        node.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, Function) and node.name.startswith("test")
        if not any(_surely_asserts(node.body, known, _given(node)))
    ]


def _asserts(node: ast.AST, known: set[str]) -> bool:
    return any(
        isinstance(part, ast.Assert | ast.Raise)
        or (isinstance(part, ast.Call) and _expects(_name(part.func), known))
        for part in ast.walk(node)
    )


def _expects(name: str, known: set[str]) -> bool:
    return name in known or name in _EXPECTING or name.startswith(_EXPECTING_PREFIXES)


def _name(function: ast.expr) -> str:
    return getattr(function, "attr", getattr(function, "id", ""))


def _given(function: Function) -> set[str]:
    """Return the names of a test's arguments, and of values that are literals in the test."""
    names = {one.arg for one in (*function.args.args, *function.args.kwonlyargs)}
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and _is_given(node.value, names):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def _is_given(values: ast.expr, given: set[str]) -> bool:
    """Return whether a loop's values are literals in the test, and not results of the code."""
    match values:
        case ast.Tuple(elts=elements) | ast.List(elts=elements) | ast.Set(elts=elements):
            return bool(elements)
        case ast.Dict(keys=keys):
            return bool(keys)
        case ast.Name(id=name):
            return name in given or name.isupper()
        case ast.Call(func=ast.Attribute(value=value, attr="items"), args=[]):
            return _is_given(value, given)
        case ast.Call(func=ast.Name(id="range")):
            return True
        case ast.Call(func=ast.Name(id="enumerate" | "zip"), args=arguments):
            return any(_is_given(argument, given) for argument in arguments)
    return False


def _surely_asserts(
    statements: Iterable[ast.stmt], known: set[str], given: set[str]
) -> Iterator[bool]:
    """Yield, for each statement, whether it always asserts something when it runs."""
    for statement in statements:
        match statement:
            case ast.For(iter=values, body=body):
                in_body = _is_given(values, given) and any(_surely_asserts(body, known, given))
                yield in_body or _asserts(values, known)
            case ast.If(body=body, orelse=other):
                yield all(any(_surely_asserts(part, known, given)) for part in (body, other))
            case ast.With(items=items, body=body):
                yield any(_asserts(item, known) for item in items) or any(
                    _surely_asserts(body, known, given)
                )
            case ast.Try(body=body, finalbody=last):
                yield any(_surely_asserts([*body, *last], known, given))
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield False
            case _:
                yield _asserts(statement, known)
