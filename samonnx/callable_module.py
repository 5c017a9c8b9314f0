"""Modules that are called like the function that they are named after: `samonnx.trace(component)`.

Importing the submodule `samonnx.trace` binds the attribute `trace` of the package to the module, whatever the package
says, so a function of that name would come and go with the order of imports. The module itself is callable instead.
"""

from __future__ import annotations

import sys
from types import ModuleType

__all__ = ["CallableModule", "make_callable"]

_CALLED = "_called_as"


class CallableModule(ModuleType):
    """A module whose call is forwarded to one of its functions, by name, so that a replaced function is honoured."""

    def __call__(self, *args: object, **keywords: object) -> object:
        """What the function gives, and raises."""
        return getattr(self, vars(self)[_CALLED])(*args, **keywords)

    @property
    def __wrapped__(self) -> object:
        """The function, where `inspect.signature` looks for it."""
        return getattr(self, vars(self)[_CALLED])


def make_callable(module: str, function: str) -> None:
    """From now on a call of `module` (its `__name__`) is a call of its function of this name."""
    vars(sys.modules[module])[_CALLED] = function
    sys.modules[module].__class__ = CallableModule
