"""Factories: "module:callable" in a recipe → the object that the callable returns, arguments of its own included."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import cast

from samonnx.errors import SamonnxError

__all__ = ["called", "imported"]


def imported(name: str, where: str) -> Callable[..., object]:
    """The callable that `name` says ("transformers:SamModel", "transformers:SamModel.from_pretrained").

    `where` is the place in the recipe. Raises SamonnxError for what cannot be imported or called.
    """
    module_name, _, path = name.partition(":")
    found: object
    try:
        found = importlib.import_module(module_name)
        for attribute in path.split("."):
            found = getattr(found, attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise SamonnxError(f"{where} {name!r} cannot be imported: {error}; expected 'module:callable'") from error
    if not callable(found):
        raise SamonnxError(f"{where} {name!r} is {type(found).__name__}, expected something that can be called")
    return cast(Callable[..., object], found)


def called(name: str, args: Mapping[str, object], where: str) -> object:
    """What the callable `name` returns for `args`, in which a mapping with `factory` is built first.

    `where` is the mapping of the recipe that holds `factory` and `args`, such as "model". Raises SamonnxError for
    callables that cannot be imported, arguments that do not fit, and what a nested callable raises.
    """
    factory = imported(name, f"{where}.factory")
    arguments = {key: _value(value, f"{where}.args.{key}", False) for key, value in args.items()}
    try:
        inspect.signature(factory).bind(**arguments)
    except TypeError as error:
        known = ", ".join(inspect.signature(factory).parameters)
        raise SamonnxError(f"{where}.args do not fit {name}: {error}; it takes: {known}") from error
    except ValueError:
        pass  # a builtin without a signature; the call itself will tell
    return factory(**arguments)


def _value(value: object, where: str, nested: bool) -> object:
    """`value` with its factories called; inside a nested factory plain dicts and lists, as other projects check for."""
    if isinstance(value, Mapping):
        if "factory" in value:
            return _nested(value, where)
        made = {key: _value(item, f"{where}.{key}", nested) for key, item in value.items()}
        return made if nested or made != value else value
    if isinstance(value, list | tuple):
        items = [_value(item, f"{where}[{place}]", nested) for place, item in enumerate(value)]
        return items if nested else tuple(items)
    return value


def _nested(value: Mapping[str, object], where: str) -> object:
    name, args = value["factory"], value.get("args", {})
    if not isinstance(name, str) or not isinstance(args, Mapping) or not set(value) <= {"factory", "args"}:
        raise SamonnxError(
            f"{where} holds {', '.join(value)}; a mapping with `factory` is what that callable returns: expected "
            "{factory: 'module:callable', args: {…}}"
        )
    plain = {key: _value(item, f"{where}.args.{key}", True) for key, item in args.items()}
    factory = imported(name, f"{where}.factory")
    try:
        return factory(**plain)
    except Exception as error:  # configurations of other projects check their arguments in ways of their own
        raise SamonnxError(f"{where}: {name} refuses its args: {error}{_close(factory, plain)}") from error


def _close(factory: Callable[..., object], args: Mapping[str, object]) -> str:
    """The names that a misspelt argument may have meant."""
    try:
        known = list(inspect.signature(factory).parameters)
    except (TypeError, ValueError):
        return ""
    hints = [f"{name}: did you mean {close[0]}?" for name in args if (close := difflib.get_close_matches(name, known))]
    return "".join(f"; {hint}" for hint in hints if not hint.startswith(tuple(f"{name}:" for name in known)))


def packages(name: str, args: object) -> tuple[str, ...]:
    """The packages that the callable `name` and those nested in `args` come from, each once, in order."""
    nested = args.values() if isinstance(args, Mapping) else args if isinstance(args, list | tuple) else ()
    found = [name.partition(":")[0].partition(".")[0]] if name else []
    for value in nested:
        own = str(value["factory"]) if isinstance(value, Mapping) and "factory" in value else ""
        found += packages(own, value)
    return tuple(dict.fromkeys(found))
