"""Find assertions on wall time, which fail on a busy machine."""

import ast
from collections.abc import Iterator

_CLOCKS = ("monotonic", "perf_counter", "process_time")


def asserted_durations(source: str) -> list[int]:
    """Return the lines of a test module that assert the duration of something.

    A duration is a difference of two readings of a clock, either directly or through a variable.
    """
    found = []
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            durations = {name for name, value in _assigned(function) if _is_duration(value)}
            found += [
                check.lineno
                for check in ast.walk(function)
                if isinstance(check, ast.Assert) and _compares(check.test, durations)
            ]
    return sorted(set(found))


def _assigned(function: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                yield from ((n.id, node.value) for n in ast.walk(target) if isinstance(n, ast.Name))
        elif isinstance(node, ast.NamedExpr):
            yield node.target.id, node.value


def _is_duration(value: ast.expr) -> bool:
    """Return whether a difference contains the reading of a clock."""
    return any(
        isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.Sub)
        and any(map(_reads_clock, ast.walk(node)))
        for node in ast.walk(value)
    )


def _reads_clock(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in _CLOCKS
    )


def _compares(test: ast.expr, durations: set[str]) -> bool:
    return any(
        isinstance(node, ast.Compare)
        and any(isinstance(op, ast.Lt | ast.LtE | ast.Gt | ast.GtE) for op in node.ops)
        and (_is_duration(node) or any(_is_name(part, durations) for part in ast.walk(node)))
        for node in ast.walk(test)
    )


def _is_name(node: ast.AST, names: set[str]) -> bool:
    return isinstance(node, ast.Name) and node.id in names
