"""YAML text to values that know their file and line.

The values are those of YAML 1.2's core schema, as editors read a recipe: `1e-3` is a number; `yes`, `on` and `12:30`
are strings. Anchors, aliases and merge keys (`<<`) work. Numbers must be finite, keys must be strings and occur once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import yaml

from samonnx.recipe_problems import Origin, Problem, RecipeError

__all__ = ["Entry", "Json", "Located", "parse_yaml"]

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


@dataclass(frozen=True)
class Entry:
    """A value in a mapping, and where its key stands."""

    key_origin: Origin
    value: Located


@dataclass(frozen=True)
class Located:
    """A value and where it stands; lists and mappings hold located values again."""

    origin: Origin
    content: bool | int | float | str | tuple[Located, ...] | Mapping[str, Entry] | None

    @property
    def entries(self) -> Mapping[str, Entry] | None:
        """The content if it is a mapping."""
        return self.content if isinstance(self.content, Mapping) else None

    def plain(self) -> Json:
        """The value without places."""
        if isinstance(self.content, Mapping):
            return {key: entry.value.plain() for key, entry in self.content.items()}
        if isinstance(self.content, tuple):
            return [item.plain() for item in self.content]
        return self.content


def parse_yaml(text: str, source: str, *, lines: bool = True) -> Located:
    """Parse one YAML document; an empty one is null.

    `source` names the text in messages, with line numbers if `lines`. Raises `RecipeError`: of a syntax error that one,
    otherwise of every bad key and value in the text.
    """
    try:
        node = yaml.compose(text, Loader=_CoreLoader)
    except yaml.YAMLError as error:
        raise RecipeError([_syntax_problem(error, source, lines)]) from error
    if node is None:
        return Located(Origin(source), None)
    reader = _Reader(source, lines)
    value = reader.read(node)
    if reader.problems:
        raise RecipeError(reader.problems)
    return value


_CORE_TYPES = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    ("merge", r"<<", ["<"]),
)


class _CoreLoader(yaml.SafeLoader):
    """PyYAML's parser with the core schema's plain scalars instead of YAML 1.1's."""

    yaml_implicit_resolvers = {}  # noqa: RUF012  # filled below, through PyYAML's own call


for _name, _pattern, _first in _CORE_TYPES:
    _CoreLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(f"^(?:{_pattern})$"), _first)


def _syntax_problem(error: yaml.YAMLError, source: str, lines: bool) -> Problem:
    if not isinstance(error, yaml.MarkedYAMLError):
        return Problem(Origin(source), f"not readable as YAML: {' '.join(str(error).split())}")
    mark = error.problem_mark or error.context_mark
    context = f" {error.context}" if error.context else ""
    since = ""
    if lines and error.context_mark and mark and error.context_mark.line != mark.line:
        since = f" (begun in line {error.context_mark.line + 1})"
    where = f", column {mark.column + 1}" if mark else ""
    origin = Origin(source, mark.line + 1) if lines and mark else Origin(source)
    return Problem(origin, f"YAML syntax error{where}:{context}{since}: {error.problem}".replace("::", ":"))


class _Reader:
    """Turns nodes into located values and collects what is wrong with them."""

    def __init__(self, source: str, lines: bool) -> None:
        self.source = source
        self.lines = lines
        self.problems: list[Problem] = []
        self._open: set[int] = set()

    def origin(self, node: yaml.Node) -> Origin:
        return Origin(self.source, node.start_mark.line + 1) if self.lines else Origin(self.source)

    def complain(self, node: yaml.Node, message: str) -> None:
        self.problems.append(Problem(self.origin(node), message))

    def read(self, node: yaml.Node) -> Located:
        origin = self.origin(node)
        if id(node) in self._open:
            self.complain(node, "an alias (`*name`) stands inside the value that its anchor (`&name`) names")
            return Located(origin, None)
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
                return Located(origin, dict(self.mapping(node)))
            if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
                return Located(origin, tuple(self.read(item) for item in node.value))
            return Located(origin, self.scalar(node))
        finally:
            self._open.discard(id(node))

    def mapping(self, node: yaml.MappingNode) -> Iterator[tuple[str, Entry]]:
        own: dict[str, Entry] = {}
        merged: dict[str, Entry] = {}
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                for key, entry in self.merged(key_node, value_node):
                    merged.setdefault(key, entry)
            elif key_node.tag != "tag:yaml.org,2002:str":
                found = key_node.value if isinstance(key_node, yaml.ScalarNode) else "a list or mapping"
                self.complain(key_node, f"key {found}: a key must be a string; quote it if it is meant as one")
            elif (key := str(key_node.value)) in own:
                first = own[key].key_origin.line
                self.complain(key_node, f"key `{key}` occurs twice" + (f", first in line {first}" if first else ""))
            else:
                own[key] = Entry(self.origin(key_node), self.read(value_node))
        yield from (merged | own).items()

    def merged(self, key_node: yaml.Node, node: yaml.Node) -> Iterator[tuple[str, Entry]]:
        """What a merge key brings in; of several mappings the first that has a key gives it."""
        for source in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if isinstance(source, yaml.MappingNode) and id(source) not in self._open:
                yield from self.mapping(source)
            else:
                self.complain(key_node, "`<<` takes a mapping or a list of mappings, such as `<<: *name`")

    def scalar(self, node: yaml.Node) -> bool | int | float | str | None:
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        text = str(node.value)
        if kind == "null":
            return None
        if kind == "bool" and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if kind == "int":
            if (number := _integer(text)) is not None:
                return number
        elif kind == "float":
            if (real := _real(text)) is not None:
                return real
        elif kind in ("str", "merge"):
            return text
        if kind in ("int", "float", "bool"):
            self.complain(node, f"{text} is not a finite number" if kind != "bool" else f"{text} is not a boolean")
        else:
            self.complain(node, f"tag {node.tag} is not known; a recipe has plain values, lists and mappings")
        return None


def _integer(text: str) -> int | None:
    bases = {"0x": 16, "0o": 8}
    try:
        return int(text, bases.get(text[:2], 10))
    except ValueError:
        return None


def _real(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:  # `.inf` and `.nan`, or an explicit !!float tag on something else
        return None
    return value if math.isfinite(value) else None
