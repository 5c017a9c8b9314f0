"""From pydantic's validation errors to problems with a place, in a recipe writer's words.

What is allowed at a place is read off the JSON schema, so that messages, editors and validation cannot drift apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from samonnx.recipe_problems import Problem, did_you_mean, show
from samonnx.recipe_yaml import Located

__all__ = ["problems_of"]

Schema = Mapping[str, Any]


def problems_of(error: ValidationError, tree: Located, schema: Schema) -> list[Problem]:
    """The problems behind a validation error of `tree` against `schema`: at most one for each place and cause."""
    problems: dict[Problem, None] = {}  # ordered; a union reports the same place once for each of its members
    for details in error.errors(include_url=False):
        problems[_problem(details, tree, schema)] = None
    return sorted(problems, key=lambda problem: (problem.origin.source, problem.origin.line or 0))


def _problem(details: ErrorDetails, tree: Located, root: Schema) -> Problem:
    value, node, origin, keys = tree, root, tree.origin, list[str]()
    for place, part in enumerate(details["loc"]):
        if (member := _member(node, part, root)) is not None:
            node = member
        elif isinstance(part, str) and value.entries is not None and part in value.entries:
            origin = value.entries[part].key_origin
            if details["type"] == "extra_forbidden" and place + 1 == len(details["loc"]):
                return Problem(origin, _unknown_key(part, keys, _resolved(node, root)))
            node = _below(node, part, root)
            value = value.entries[part].value
            keys.append(part)
        elif isinstance(part, int) and isinstance(value.content, tuple):
            node = _item(node, root)
            value = value.content[part]
            origin = value.origin
            keys.append(str(part))
        elif details["type"] == "missing":
            missing = _below(node, str(part), root)
            where = f"`{'.'.join(keys)}` lacks" if keys else "the recipe lacks"
            return Problem(origin, f"{where} the key `{part}`: {describe(missing, root)}{_example(missing)}")
        else:
            break  # the rest names a member of a union
    path = ".".join(keys)
    if not isinstance(value.content, Mapping | tuple):
        origin = value.origin  # a mapping or list begins below its key, a scalar may be an alias of one elsewhere
    if details["type"] == "value_error":
        return Problem(origin, f"{path}: found {show(value.plain())}; {details['ctx']['error']}")
    return Problem(origin, f"{path}: found {show(value.plain())}, allowed: {describe(node, root)}{_example(node)}")


def _unknown_key(key: str, parents: Sequence[str], node: Schema) -> str:
    allowed = list(node.get("properties", {}))
    where = f" in `{'.'.join(parents)}`" if parents else ""
    allowed_here = [*allowed, "extends"] if not parents else allowed
    return f"unknown key `{key}`{where}; {did_you_mean(key, allowed_here)}allowed: {', '.join(allowed_here)}"


def _resolved(node: Schema, root: Schema) -> Schema:
    while "$ref" in node:
        node = root["$defs"][node["$ref"].rpartition("/")[2]]
    return node


def _member(node: Schema, name: str | int, root: Schema) -> Schema | None:
    """Of a value that is told by its keys, the form called `name`."""
    members = _resolved(node, root).get("oneOf", ())
    return next((member for member in members if member.get("$ref", "").endswith(f"/{name}")), None)


def _below(node: Schema, key: str, root: Schema) -> Schema:
    node = _resolved(node, root)
    below = node.get("properties", {}).get(key, node.get("additionalProperties", {}))
    return below if isinstance(below, Mapping) else {}


def _item(node: Schema, root: Schema) -> Schema:
    """What a list allows in it, the list perhaps one of several kinds of value."""
    node = _resolved(node, root)
    members = [_resolved(member, root) for member in node.get("anyOf", (node,))]
    items: Schema = next((member["items"] for member in members if "items" in member), {})
    return items


def _example(node: Schema) -> str:
    examples = node.get("examples", ())
    return f", such as {examples[0]}" if examples else ""


def describe(node: Schema, root: Schema) -> str:
    """What a schema node allows, in words: "a whole number, at least 1"."""
    outer, node = node, _resolved(node, root)
    if "const" in node:
        return f"{node['const']}"
    if "enum" in node:
        return f"one of {', '.join(map(str, node['enum']))}"
    if "anyOf" in node or "oneOf" in node:
        return " or ".join(describe(member, root) for member in node.get("anyOf", node.get("oneOf")))
    kind = node.get("type")
    if kind == "array":
        words = f"a list, each item {describe(node.get('items', {}), root)}"
        return words + ("; not empty" if node.get("minItems") else "")
    if kind == "object":
        if "properties" in node:
            return f"a mapping with the keys {', '.join(node['properties'])}"
        of = node.get("additionalProperties")
        return f"a mapping of names to {describe(of, root)}" if isinstance(of, Mapping) else "a mapping"
    words = _TYPES.get(str(kind), "any value")
    if "minimum" in node:
        words += f", at least {node['minimum']}"
    if "exclusiveMinimum" in node:
        words += f", above {node['exclusiveMinimum']}"
    if "pattern" in node and (meaning := outer.get("description")):
        words += f" ({meaning.rstrip('.')})"
    return words


_TYPES = {
    "string": "a string",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
}
