"""JSON to frozen dataclasses and back, strictly: the fields of the class are the schema.

An unknown key, a missing field, a wrong type: each is one error that names the place (`programs[0].inputs[2].shape`),
what was found and what was expected. Understands str, int, float, bool, None, unions of these, `tuple[X, ...]`,
`tuple[X, Y]`, `Mapping[str, X]` and nested dataclasses; that is all the manifest needs.
"""

from __future__ import annotations

import dataclasses
import json
import types
from collections.abc import Mapping
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from samonnx.errors import SamonnxError

__all__ = ["TypedJsonError", "dump", "parse"]

T = TypeVar("T")


class TypedJsonError(SamonnxError):
    """A JSON value does not have the form that the dataclass describes."""


def parse(cls: type[T], value: object, where: str = "") -> T:
    """Build the dataclass `cls` from the parsed JSON `value`; `where` is the path shown in errors.

    Raises TypedJsonError. A field with a default may be absent.
    """
    if not isinstance(value, Mapping):
        raise TypedJsonError(f"{where or 'the file'}: expected an object, found {_describe(value)}")
    hints = get_type_hints(cls)
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]  # T is a dataclass by contract
    names = [field.name for field in fields]
    unknown = sorted(set(value) - set(names))
    if unknown:
        raise TypedJsonError(f"{where or 'the file'}: unknown field {unknown[0]!r}; known are: {', '.join(names)}")
    arguments: dict[str, object] = {}
    for field in fields:
        path = f"{where}.{field.name}" if where else field.name
        if field.name in value:
            arguments[field.name] = _convert(hints[field.name], value[field.name], path)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise TypedJsonError(f"field {path!r} is missing")
    return cls(**arguments)


def dump(value: object) -> str:
    """Deterministic JSON text of a dataclass: sorted keys, two spaces, a newline at the end; NaN is refused."""
    return json.dumps(_plain(value), sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value


def _convert(hint: Any, value: object, where: str) -> object:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        for option in arguments:
            if _is_plain(option, value):
                return value
            if dataclasses.is_dataclass(option) and isinstance(value, Mapping):
                return _convert(option, value, where)
        raise TypedJsonError(f"{where}: expected {_spell(hint)}, found {_describe(value)}")
    if origin is tuple:
        return _convert_tuple(arguments, value, where)
    if origin is Mapping:
        if not isinstance(value, Mapping):
            raise TypedJsonError(f"{where}: expected an object, found {_describe(value)}")
        return {str(key): _convert(arguments[1], item, f"{where}[{key!r}]") for key, item in value.items()}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return parse(hint, value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not _is_plain(hint, value):
        raise TypedJsonError(f"{where}: expected {_spell(hint)}, found {_describe(value)}")
    return value


def _convert_tuple(arguments: tuple[Any, ...], value: object, where: str) -> tuple[object, ...]:
    if not isinstance(value, list):
        raise TypedJsonError(f"{where}: expected a list, found {_describe(value)}")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_convert(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if len(arguments) != len(value):
        raise TypedJsonError(f"{where}: expected a list of {len(arguments)}, found {len(value)} entries")
    return tuple(_convert(h, item, f"{where}[{i}]") for i, (h, item) in enumerate(zip(arguments, value, strict=True)))


def _is_plain(hint: Any, value: object) -> bool:
    """bool is an int to Python; to a reader of JSON it is not."""
    if hint is type(None):
        return value is None
    if isinstance(value, bool):
        return hint is bool
    return hint in (str, int, float) and isinstance(value, hint)


def _spell(hint: Any) -> str:
    words = {str: "a string", int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}
    return " or ".join(words.get(option, "an object") for option in (get_args(hint) or (hint,)))


def _describe(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
