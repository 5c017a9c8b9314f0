"""Build: a recipe's factory, pins and weights → the module that is traced."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import nn

from samonnx.errors import SamonnxError
from samonnx.foreign.factory import called
from samonnx.foreign.own_weights import keep_own
from samonnx.foreign.replace import Replaced, traced_copy
from samonnx.pins import PinTable, apply_pins
from samonnx.recipe import Recipe
from samonnx.weights import WHOLE_MODEL, Components, WeightsReport, fill_seeded, load_weights, read_checkpoint

__all__ = ["BuiltModel", "build_model"]


@dataclass(frozen=True)
class BuiltModel:
    """The module in eval mode, every branch pinned, weights in place.

    `traced` is the module with submodules replaced, as the recipe says (`replaced`); it shares the weights, and is the
    module itself where the recipe has no calls.
    """

    module: nn.Module
    pins: PinTable
    weights: WeightsReport
    traced: nn.Module
    replaced: tuple[Replaced, ...] = ()


def build_model(recipe: Recipe, checkpoint: Path | None = None) -> BuiltModel:
    """Call the recipe's factory, apply its pins, load `checkpoint` (or the recipe's own, or seeded weights).

    A module may say which components its keys belong to (`components`: name → key prefixes) and which keys of
    released files it never reads (`ignored_keys`: globs). Raises SamonnxError for a factory that cannot be called;
    PinError; WeightsError; CheckpointError; ReplaceError.
    """
    with torch.random.fork_rng(devices=[]):  # what the constructor draws depends on the recipe alone
        torch.manual_seed(recipe.weights.seed)
        module = called(recipe.model.factory, recipe.model.args, "model")
    if not isinstance(module, nn.Module):
        raise SamonnxError(
            f"model.factory {recipe.model.factory!r} returned {type(module).__name__}, expected a torch.nn.Module"
        )
    module.eval().requires_grad_(False)
    pins = apply_pins(module, recipe.pins)
    components = cast(Components, getattr(module, "components", WHOLE_MODEL))
    path = checkpoint or (Path(recipe.weights.checkpoint) if recipe.weights.checkpoint else None)
    if path is None and recipe.weights.init == "own":
        if recipe.weights.rescale:
            raise SamonnxError("weights.rescale needs `init: formula`: it scales weights filled by formula")
        weights = keep_own(module, recipe.weights.seed, components)
    elif path is None:
        weights = fill_seeded(module, recipe.weights.seed, recipe.weights.rescale, components)
    else:
        ignored = getattr(module, "ignored_keys", ())
        weights = load_weights(module, read_checkpoint(path), components, ignored_keys=ignored, file=path.name)
    traced, replaced = traced_copy(module, recipe.replace) if recipe.calls or recipe.replace else (module, ())
    return BuiltModel(module, pins, weights, traced, replaced)
