"""YAML of recipes, written for one reader and parsed within limits, without repeated keys.

    values ──dump_yaml, inline_yaml──▶ text, quoted wherever the reader needs it

    text ──events, counted──▶ small enough, no recursive alias ──▶ values, no repeated key

The events of a text are counted before any value is built. With aliases, a few lines can expand to
more values than fit into memory (an attack called "billion laughs").
"""

import math
import re
from collections.abc import Hashable
from typing import Any

import yaml

MAX_BYTES = 2_000_000
MAX_VALUES = 100_000  # maximum number of values after aliases are expanded
MAX_DEPTH = 32
_SEPARATORS = re.compile("[\x85\u2028\u2029]")
# Numbers that YAML 1.1 reads in base 8 or 60, which users hardly ever intend.
_OCTAL = re.compile(r"[-+]?0[0-7_]+")
_BASE_60 = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?")
MAX_OPEN_BRACKETS = 500  # PyYAML takes about 1 ms per open bracket; brackets in comments count, too


class YamlError(Exception):
    """A text that is not valid YAML of a recipe; the message gives the line."""


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML document.

    Raises:
        YamlError: the text is not YAML, is too large or nested too deep, or repeats a key.
    """
    if len(text) > MAX_BYTES:
        raise YamlError(f"it has {len(text):,} characters, expected at most {MAX_BYTES:,}")
    if separator := _SEPARATORS.search(text):
        raise YamlError(
            f"line {text.count(chr(10), 0, separator.start()) + 1}: it contains "
            f"U+{ord(separator[0]):04X}, an invisible character that YAML takes for the end of a "
            "line. Remove it, or write it as \\u"
            f"{ord(separator[0]):04X} in double quotes"
        )
    _count_brackets(text)
    try:
        _count_values(text)
        return _Loader(text).get_single_data()
    except yaml.YAMLError as error:
        raise YamlError(f"it is not YAML: {_problem(error)}") from error
    except ValueError as error:  # for example, an impossible date or a number of 5,000 digits
        raise YamlError(f"a value in it is invalid: {error}") from error


def dump_yaml(values: Any) -> str:
    """Return values as a YAML document."""
    text: str = yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


def inline_yaml(value: str | float | None) -> str:
    """Return a value in one line of YAML, valid between brackets, too."""
    text: str = yaml.dump(
        [value], Dumper=_Dumper, default_flow_style=True, allow_unicode=True, width=math.inf
    )
    return text.strip()[1:-1]


class _Dumper(yaml.SafeDumper):
    """Writer that escapes characters that are not printable, which readers may change."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        style = None if text.isprintable() else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _Dumper.represent_text)


class _Loader(yaml.SafeLoader):
    """Loader of plain values that refuses repeated keys."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # Check before `<<` merges the keys of another table, which may repeat keys of this table.
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        lines: dict[Hashable, int] = {}
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise YamlError(f"line {_line(key_node)}: a key is {key_node.id}, expected a name")
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node)
            if key in lines:
                raise YamlError(
                    f"the key {key_node.value[:80]!r} appears in line {lines[key]} and again in "
                    f"line {_line(key_node)}: remove one of the two"
                )
            lines[key] = _line(key_node)
        return node


def _number(loader: _Loader, node: yaml.ScalarNode) -> Any:
    """Construct a number whose digits mean the same to every reader.

    Raises:
        YamlError: the number has a leading zero, or colons.
    """
    text = node.value
    is_float = node.tag.endswith("float")
    value = (loader.construct_yaml_float if is_float else loader.construct_yaml_int)(node)
    where, other = f"line {_line(node)}: {text} is {value} in YAML 1.1", f'"{text}" with quotes'
    if _BASE_60.fullmatch(text):
        raise YamlError(
            f"{where}, where colons separate digits to the base 60, and a text elsewhere. Write "
            f"{value}, or {other}"
        )
    if _OCTAL.fullmatch(text) and value != (decimal := int(text.replace("_", ""))):
        raise YamlError(
            f"{where}, where a leading zero means the base 8, and {decimal} elsewhere. Write "
            f"{value} or {decimal}, or {other} for a text"
        )
    return value


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _number)


def _count_brackets(text: str) -> None:
    still_open = 0
    for bracket in re.finditer(r"[\[\]{}]", text):
        still_open = still_open + 1 if bracket[0] in "[{" else max(0, still_open - 1)
        if still_open > MAX_OPEN_BRACKETS:
            line = text.count("\n", 0, bracket.start()) + 1
            raise YamlError(f"line {line}: more than {MAX_OPEN_BRACKETS} brackets are open")


def _count_values(text: str) -> None:
    """Count the values of a text, with aliases expanded.

    Raises:
        YamlError: there are too many values, they are nested too deep, or an alias refers to
            itself.
    """
    values = 0
    open_nodes: list[tuple[str | None, int]] = []  # anchor, number of values before the node
    sizes: dict[str, int] = {}  # number of values, by anchor
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _ in open_nodes):
                raise YamlError(f"line {_line(event)}: *{event.anchor} refers to itself")
            values += sizes.get(str(event.anchor), 1)
        elif isinstance(event, yaml.ScalarEvent):
            values += 1
            if event.anchor:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, values))
            values += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor:
                sizes[anchor] = values - before
        if len(open_nodes) > MAX_DEPTH:
            raise YamlError(f"line {_line(event)}: nested deeper than {MAX_DEPTH}")
        if values > MAX_VALUES:
            raise YamlError(
                f"line {_line(event)}: more than {MAX_VALUES:,} values, with aliases expanded"
            )


def _problem(error: yaml.YAMLError) -> str:
    """Return the problem and its position, without the line, which may contain a password."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        tab = ". Indent with spaces instead of tabs" if r"\t" in str(error.problem) else ""
        return f"{error.problem} in line {mark.line + 1}, column {mark.column + 1}{tab}"
    return str(error)


def _line(place: yaml.Node | yaml.Event) -> int:
    return place.start_mark.line + 1 if place.start_mark else 1
