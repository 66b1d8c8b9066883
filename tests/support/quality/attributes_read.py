"""Which attributes of which classes some source files read.

All functions of the packages are annotated, so the class of nearly every expression follows from
annotations, assignments and loops. Where it does not, a read is not seen: who asks whether a field
is read may be told no where it should be yes, and never the other way round.

A type is here the set of the class names in an annotation: ``tuple[CorpusConfig, ...] | None`` is
{CorpusConfig}, and so are its items. Classes are known by their bare names.
"""

import ast
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Types = frozenset[str]
Read = tuple[str, str]  # class, attribute
NOTHING: Types = frozenset()
# Functions and methods whose result is made of what they are given.
SAME_THINGS = {"enumerate", "zip", "list", "tuple", "sorted", "next", "iter"}
SAME_THINGS |= {"values", "items", "get", "model_copy"}


class Sources:
    """The classes and functions of all files, and what each of these reads."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._members: dict[Read, Types] = {}  # attributes, properties, and what methods return
        self._functions: dict[str, Types] = {}  # what they return
        self._casts: set[str] = set()  # methods that return an object of the class they are given
        self._readers: list[tuple[Path, str, str, ast.AST]] = []  # file, class, function, code
        trees = {file: ast.parse(file.read_text(encoding="utf-8")) for file in files}
        named = [
            node
            for tree in trees.values()
            for node in tree.body
            if isinstance(node, (ast.ClassDef, ast.FunctionDef))
        ]
        times = Counter(node.name for node in named)
        self._clear = {name for name in times if times[name] == 1}  # which one is meant
        self.bases = {
            node.name: frozenset(base.id for base in node.bases if isinstance(base, ast.Name))
            for node in named
            if isinstance(node, ast.ClassDef) and node.name in self._clear
        }
        self._related = self._families()
        self._aliases = {
            node.targets[0].id: node.value
            for tree in trees.values()
            for node in tree.body
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, (ast.BinOp, ast.Subscript))
        }
        # Twice: an assignment's type may follow from a class of a later file.
        for _ in range(2):
            self._readers.clear()
            for file, tree in trees.items():
                for node in tree.body:
                    self._take_in(file, "", node)

    def reads(self, within: Iterable[Path]) -> set[Read]:
        """What is read in some files; what they read by a property is what the property reads."""
        files = set(within)
        by_reader: dict[Read, set[Read]] = defaultdict(set)
        found: set[Read] = set()
        for file, owner, name, code in self._readers:
            reads = _Reader(self, owner).reads_of(code)
            by_reader[owner, name] |= reads
            if file in files:
                found |= reads
        while more := self._read_by_properties(found, by_reader) - found:
            found |= more
        return found

    def _read_by_properties(self, found: set[Read], by_reader: dict[Read, set[Read]]) -> set[Read]:
        """What properties read that were read themselves, those that override them included."""
        return {
            read
            for owner, name in found
            for related in self._related.get(owner, {owner})
            for read in by_reader.get((related, name), ())
        }

    def _families(self) -> dict[str, set[str]]:
        """Each class with what it is made from, and what is made from it."""
        families = {name: {name} for name in self.bases}
        for name in self.bases:
            for ancestor in self._ancestors(name):
                families[name].add(ancestor)
                families.setdefault(ancestor, {ancestor}).add(name)
        return families

    def _ancestors(self, owner: str) -> set[str]:
        bases = self.bases.get(owner, NOTHING)
        return set(bases).union(*map(self._ancestors, bases))

    def member(self, owner: str, name: str) -> Types:
        """The type of an attribute of a class or of the classes that it is made from."""
        if (owner, name) in self._members:
            return self._members[owner, name]
        inherited = (self.member(base, name) for base in self.bases.get(owner, NOTHING))
        return frozenset().union(*inherited)

    def result(self, function: str) -> Types:
        if function in self.bases:
            return frozenset({function})
        return self._functions.get(function, NOTHING)

    def is_cast(self, method: str) -> bool:
        return method in self._casts

    def types_in(self, annotation: ast.AST | None) -> Types:
        if annotation is None:
            return NOTHING
        names = set(_names(annotation))
        for alias in names & self._aliases.keys():  # as in `Layers = Encoder | Decoder`
            names |= set(_names(self._aliases[alias]))
        return frozenset(names) & self.bases.keys()

    def _clear_name(self, file: Path, name: str) -> str:
        return name if name in self._clear else f"{file}: {name}"

    def _take_in(self, file: Path, owner: str, node: ast.AST) -> None:
        if isinstance(node, ast.ClassDef):
            for part in node.body:
                self._take_in(file, self._clear_name(file, node.name), part)
        elif isinstance(node, ast.FunctionDef):
            returned = self.types_in(node.returns)
            if owner:
                self._members[owner, node.name] = returned
                if _is_cast(node):
                    self._casts.add(node.name)
                self._take_in_assignments(owner, node)
            else:
                self._functions[node.name] = returned if node.name in self._clear else NOTHING
            self._readers.append((file, owner, node.name, node))
        else:
            if owner and isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                self._members[owner, node.target.id] = self.types_in(node.annotation)
            self._readers.append((file, owner, "", node))

    def _take_in_assignments(self, owner: str, function: Any) -> None:
        """``self.x: T = …``, and ``self.x = y`` of something whose type is known."""
        reader = _Reader(self, owner)
        reader.bind_arguments(function)
        for node in ast.walk(function):
            if isinstance(node, (ast.Assign, ast.AnnAssign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for target in targets:
                    if isinstance(target, ast.Attribute) and _is_self(target.value):
                        types = self.types_in(getattr(node, "annotation", None))
                        types |= reader.type_of(node.value) if node.value else NOTHING
                        before = self._members.get((owner, target.attr), NOTHING)
                        self._members[owner, target.attr] = before | types


class _Reader(ast.NodeVisitor):
    """Walks through a function, and knows the types of its variables."""

    def __init__(self, sources: Sources, owner: str) -> None:
        self._sources = sources
        self._owner = owner
        self._variables: dict[str, Types] = defaultdict(lambda: NOTHING)
        self._reads: set[Read] = set()

    def reads_of(self, code: ast.AST) -> set[Read]:
        # Twice: a comprehension's variable is bound after what stands before it.
        for _ in range(2):
            self.visit(code)
        return self._reads

    def bind_arguments(self, function: Any) -> None:
        arguments = function.args
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            self._variables[argument.arg] |= self._sources.types_in(argument.annotation)
        if self._owner:
            self._variables["self"] = frozenset({self._owner})

    def type_of(self, node: ast.AST) -> Types:
        """Of an expression; of a container, of what is in it."""
        if isinstance(node, ast.Name):
            return self._variables[node.id]
        if isinstance(node, ast.Attribute):
            owners = self.type_of(node.value)
            members = [self._sources.member(owner, node.attr) for owner in owners]
            if node.attr in SAME_THINGS:
                members.append(owners)
            return frozenset().union(*members)
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in SAME_THINGS:
                return frozenset().union(*map(self.type_of, node.args))
            if isinstance(node.func, ast.Name):
                return self._sources.result(node.func.id)
            if isinstance(node.func, ast.Attribute) and self._sources.is_cast(node.func.attr):
                return frozenset().union(*map(self._sources.types_in, node.args))
            return self.type_of(node.func)
        if isinstance(node, (ast.Subscript, ast.Starred)):
            return self.type_of(node.value)
        if isinstance(node, (ast.IfExp, ast.BoolOp, ast.Tuple, ast.List)):
            return frozenset().union(*map(self.type_of, ast.iter_child_nodes(node)))
        if isinstance(node, (ast.ListComp, ast.GeneratorExp, ast.SetComp)):
            return self.type_of(node.elt)
        return NOTHING

    def visit_FunctionDef(self, node: Any) -> None:
        self.bind_arguments(node)
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if isinstance(node.ctx, ast.Load):
            self._reads |= {(owner, node.attr) for owner in self.type_of(node.value)}
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        for target in node.targets:
            self._bind(target, self.type_of(node.value))

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.generic_visit(node)
        self._bind(node.target, self._sources.types_in(node.annotation))

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.generic_visit(node)
        self._bind(node.target, self.type_of(node.value))

    def visit_For(self, node: ast.For) -> None:
        self._bind(node.target, self.type_of(node.iter))
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        self._bind(node.target, self.type_of(node.iter))
        self.generic_visit(node)

    def _bind(self, target: ast.AST, types: Types) -> None:
        for node in ast.walk(target):
            if isinstance(node, ast.Name):
                self._variables[node.id] |= types


def _names(annotation: ast.AST) -> Iterable[str]:
    """All names in an annotation, also those within a text."""
    for node in ast.walk(annotation):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            try:
                yield from _names(ast.parse(node.value, mode="eval"))
            except SyntaxError:
                continue  # a text of another kind, as in Literal


def _is_cast(method: ast.FunctionDef) -> bool:
    """Whether it is annotated as ``def f(self, kind: type[T]) -> T``."""
    given = {ast.unparse(part.annotation) for part in method.args.args if part.annotation}
    return method.returns is not None and f"type[{ast.unparse(method.returns)}]" in given


def _is_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"
