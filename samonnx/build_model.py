"""Build: a recipe's factory, pins and weights → the module that is traced."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from torch import nn

from samonnx.errors import SamonnxError
from samonnx.pins import PinTable, apply_pins
from samonnx.recipe import Recipe
from samonnx.weights import WHOLE_MODEL, Components, WeightsReport, fill_seeded, load_weights, read_checkpoint

__all__ = ["BuiltModel", "build_model"]


@dataclass(frozen=True)
class BuiltModel:
    """The module in eval mode, every branch pinned, weights in place."""

    module: nn.Module
    pins: PinTable
    weights: WeightsReport


def build_model(recipe: Recipe, checkpoint: Path | None = None) -> BuiltModel:
    """Call the recipe's factory, apply its pins, load `checkpoint` (or the recipe's own, or seeded weights).

    A module may say which components its keys belong to (`components`: name → key prefixes) and which keys of
    released files it never reads (`ignored_keys`: globs). Raises SamonnxError for a factory that cannot be called;
    PinError; WeightsError; CheckpointError.
    """
    module = _called(recipe)
    if not isinstance(module, nn.Module):
        raise SamonnxError(
            f"model.factory {recipe.model.factory!r} returned {type(module).__name__}, expected a torch.nn.Module"
        )
    module.eval().requires_grad_(False)
    pins = apply_pins(module, recipe.pins)
    components = cast(Components, getattr(module, "components", WHOLE_MODEL))
    path = checkpoint or (Path(recipe.weights.checkpoint) if recipe.weights.checkpoint else None)
    if path is None:
        weights = fill_seeded(module, recipe.weights.seed, recipe.weights.rescale, components)
    else:
        ignored = getattr(module, "ignored_keys", ())
        weights = load_weights(module, read_checkpoint(path), components, ignored_keys=ignored, file=path.name)
    return BuiltModel(module, pins, weights)


def _called(recipe: Recipe) -> object:
    factory, args = _factory(recipe.model.factory), dict(recipe.model.args)
    try:
        inspect.signature(factory).bind(**args)
    except TypeError as error:
        known = ", ".join(inspect.signature(factory).parameters)
        raise SamonnxError(f"model.args do not fit {recipe.model.factory}: {error}; it takes: {known}") from error
    except ValueError:
        pass  # a builtin without a signature; the call itself will tell
    return factory(**args)


def _factory(name: str) -> Callable[..., object]:
    module_name, _, attribute = name.partition(":")
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise SamonnxError(f"model.factory {name!r} cannot be imported: {error}; expected 'module:callable'") from error
    if not callable(factory):
        raise SamonnxError(f"model.factory {name!r} is {type(factory).__name__}, expected something that can be called")
    return cast(Callable[..., object], factory)
