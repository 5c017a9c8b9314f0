"""Packages that the base install does not bring; each is imported when it is first needed."""

from __future__ import annotations

import importlib
from types import ModuleType

from samonnx.errors import SamonnxError

__all__ = ["MissingExtraError", "require_extra"]


class MissingExtraError(SamonnxError):
    """A package of an extra is not installed."""


def require_extra(module: str, extra: str) -> ModuleType:
    """Import `module`, which `pip install "samonnx[extra]"` brings. Raises MissingExtraError, which says so."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f'the Python package {module.partition(".")[0]!r} is not installed; run: pip install "samonnx[{extra}]"'
        ) from error
