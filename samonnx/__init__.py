"""samonnx compiles segmentation-and-tracking models of the SAM family into one stateless ONNX graph, and lends its
parts to other exporters.

    from samonnx import Recipe, compile, trace, link, optimize, verify
    from samonnx.passes import ...

The package itself imports nothing heavy: the names below, and the modules behind them, load on first use, and the ones
of the compiler need the extra `samonnx[compile]`. `samonnx.runtime` needs numpy and onnxruntime only.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from samonnx.errors import SamonnxError

if TYPE_CHECKING:
    # At run time these five are modules that are called like their function (see `callable_module`); `from
    # samonnx.trace import TraceError` finds the module for type checkers too.
    from samonnx.compile import compile_recipe
    from samonnx.compile import compile_recipe as compile
    from samonnx.link import Wiring, link
    from samonnx.optimize import optimize
    from samonnx.programs.program import Component, Port, Program, TypedPort, Wire
    from samonnx.recipe import Recipe, load_recipe
    from samonnx.trace import trace
    from samonnx.verify import verify

__all__ = [
    "Component",
    "Port",
    "Program",
    "Recipe",
    "SamonnxError",
    "TypedPort",
    "Wire",
    "Wiring",
    "__version__",
    "compile",
    "compile_recipe",
    "link",
    "load_recipe",
    "optimize",
    "trace",
    "verify",
]

__version__ = "0.1.0"

_HOME = {
    "Component": "samonnx.programs.program",
    "Port": "samonnx.programs.program",
    "Program": "samonnx.programs.program",
    "Recipe": "samonnx.recipe",
    "TypedPort": "samonnx.programs.program",
    "Wire": "samonnx.programs.program",
    "Wiring": "samonnx.link",
    "compile_recipe": "samonnx.compile",
    "load_recipe": "samonnx.recipe",
}

_MODULES = frozenset({"compile", "link", "optimize", "trace", "verify"})


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return importlib.import_module(f"samonnx.{name}")
    if name in _HOME:
        value: object = getattr(importlib.import_module(_HOME[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'samonnx' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
