"""Find the attributes of classes that source files read, with the types that mypy infers."""

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from mypy import build
from mypy.modulefinder import BuildSource
from mypy.nodes import TypeInfo
from mypy.options import Options
from mypy.traverser import NameAndMemberCollector
from mypy.types import Instance, Type, TypeType, UnionType, get_proper_type

Read = tuple[str, str]  # class, attribute


class Sources:
    """Source files with their classes, and the attributes that their functions read."""

    def __init__(self, files: Iterable[Path], root: Path) -> None:
        """Infer the types with mypy; types from packages outside of these files are unknown."""
        options = Options()
        options.incremental, options.export_types = False, True
        options.follow_imports, options.ignore_missing_imports = "skip", True
        options.ignore_errors = options.preserve_asts = True
        paths = {".".join(path.relative_to(root).with_suffix("").parts): path for path in files}
        names = {name.removesuffix(".__init__"): path for name, path in paths.items()}
        built = build.build([BuildSource(str(path), name) for name, path in names.items()], options)
        self._readers: dict[Path, dict[Read, set[Read]]] = {}
        self._related: dict[str, set[str]] = defaultdict(set)  # base classes of each class
        for name, path in names.items():
            collector = NameAndMemberCollector()
            built.files[name].accept(collector)
            owners = {
                (node.line, node.column, node.end_line, node.end_column): built.types.get(node.expr)
                for node in collector.member_exprs
            }
            visitor = _Reads(owners)
            visitor.visit(ast.parse(path.read_text(encoding="utf-8")))
            self._readers[path] = visitor.by_reader
            for symbol in built.files[name].names.values():
                if isinstance(symbol.node, TypeInfo):
                    for base in symbol.node.mro:
                        self._related[symbol.node.name].add(base.name)
                        self._related[base.name].add(symbol.node.name)

    def reads(self, within: Iterable[Path]) -> set[Read]:
        """Return the attributes that files read, including those that properties read."""
        by_reader: dict[Read, set[Read]] = defaultdict(set)
        for readers in self._readers.values():
            for reader, reads in readers.items():
                by_reader[reader] |= reads
        found = {
            read for path in within for reads in self._readers[path].values() for read in reads
        }
        while (
            more := {
                read
                for owner, name in found
                for related in self._related[owner]
                for read in by_reader[related, name]
            }
            - found
        ):
            found |= more
        return found


class _Reads(ast.NodeVisitor):
    """Return the attributes that each function of a file reads, by class and name."""

    def __init__(self, owners: dict[tuple[int, int, int | None, int | None], Type | None]) -> None:
        self._owners = owners
        self._reader = "", ""
        self.by_reader: dict[Read, set[Read]] = defaultdict(set)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        before, self._reader = self._reader, (node.name, "")
        self.generic_visit(node)
        self._reader = before

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        before, self._reader = self._reader, (self._reader[0], node.name)
        self.generic_visit(node)
        self._reader = before

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.generic_visit(node)
        if isinstance(node.ctx, ast.Load):
            place = node.lineno, node.col_offset, node.end_lineno, node.end_col_offset
            owners = _classes(self._owners.get(place))
            self.by_reader[self._reader] |= {(owner, node.attr) for owner in owners}


def _classes(type_: Type | None) -> Iterator[str]:
    found = get_proper_type(type_)
    if isinstance(found, UnionType):
        for item in found.items:
            yield from _classes(item)
    elif isinstance(found, TypeType):
        yield from _classes(found.item)
    elif isinstance(found, Instance):
        yield found.type.name
