"""samonnx compiles segmentation-and-tracking models of the SAM family into one stateless ONNX graph.

The package itself imports nothing heavy: the names below, and the modules behind them, load on first use, and the ones
of the compiler need the extra `samonnx[compile]`. `samonnx.runtime` needs numpy and onnxruntime only.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from samonnx.errors import SamonnxError

if TYPE_CHECKING:
    from samonnx import link, trace, verify
    from samonnx.compile import compile_recipe
    from samonnx.recipe import Recipe, load_recipe

__all__ = ["Recipe", "SamonnxError", "__version__", "compile_recipe", "link", "load_recipe", "trace", "verify"]

__version__ = "0.1.0"

_HOME = {
    "Recipe": "samonnx.recipe",
    "load_recipe": "samonnx.recipe",
    "compile_recipe": "samonnx.compile",
}

# These names are the modules, as they must be: importing samonnx.trace binds `samonnx.trace` to the module, so that a
# function of that name would come and go with the order of imports. The function is samonnx.trace.trace.
_MODULES = frozenset({"link", "trace", "verify"})


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
