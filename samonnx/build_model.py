"""Build: a recipe's factory, pins and weights → the module that is traced."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from samonnx.checkpoint_files import Checkpoint, CheckpointTensors, read_checkpoint_files
from samonnx.errors import SamonnxError
from samonnx.foreign.factory import called
from samonnx.foreign.own_weights import keep_own
from samonnx.foreign.replace import Replaced, traced_copy
from samonnx.pins import PinTable, apply_pins
from samonnx.recipe import Recipe
from samonnx.weights import WHOLE_MODEL, Components, WeightsReport, fill_seeded, load_weights

__all__ = ["BuiltModel", "build_model"]

ArgsOfShapes = Callable[[Mapping[str, tuple[int, ...]]], Mapping[str, Any]]


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


def build_model(recipe: Recipe, checkpoint: Checkpoint | None = None) -> BuiltModel:
    """Call the recipe's factory, apply its pins, load `checkpoint` (or the recipe's own, or seeded weights).

    A module may say which components its keys belong to (`components`: name → key prefixes), which keys of released
    files it never reads (`ignored_keys`: globs), and how a checkpoint's tensors become its own (`checkpoint_tensors`).
    Beside the factory may stand `args_of_shapes`, which reads arguments that the recipe leaves out off the shapes of a
    checkpoint. Raises SamonnxError for a factory that cannot be called; PinError; WeightsError; CheckpointError;
    ReplaceError.
    """
    told = _args_of_shapes(recipe)
    given = read_checkpoint_files(checkpoint, recipe.weights) if told else None
    with torch.random.fork_rng(devices=[]):  # what the constructor draws depends on the recipe alone
        torch.manual_seed(recipe.weights.seed)
        module = called(recipe.model.factory, _arguments(recipe, given, told), "model")
    if not isinstance(module, nn.Module):
        raise SamonnxError(
            f"model.factory {recipe.model.factory!r} returned {type(module).__name__}, expected a torch.nn.Module"
        )
    module.eval().requires_grad_(False)
    pins = apply_pins(module, recipe.pins)
    if told is None:  # otherwise it has been read already
        given = read_checkpoint_files(checkpoint, recipe.weights)
    components = cast(Components, getattr(module, "components", WHOLE_MODEL))
    if given is None and recipe.weights.init == "own":
        if recipe.weights.rescale:
            raise SamonnxError("weights.rescale needs `init: formula`: it scales weights filled by formula")
        weights = keep_own(module, recipe.weights.seed, components)
    elif given is None:
        weights = fill_seeded(module, recipe.weights.seed, recipe.weights.rescale, components)
    else:
        given.check_parts([name for name, part in module.named_children() if part.state_dict()], type(module).__name__)
        ignored, adapted = getattr(module, "ignored_keys", ()), getattr(module, "checkpoint_tensors", dict)
        weights = load_weights(module, adapted(given.tensors), components, ignored_keys=ignored, file=given.files)
    traced, replaced = traced_copy(module, recipe.replace) if recipe.calls or recipe.replace else (module, ())
    return BuiltModel(module, pins, weights, traced, replaced)


def _args_of_shapes(recipe: Recipe) -> ArgsOfShapes | None:
    """The function that stands beside the recipe's factory, if there is one."""
    try:
        home = importlib.import_module(recipe.model.factory.partition(":")[0])
    except (ImportError, ValueError):
        return None  # the call of the factory will say what is wrong
    return cast(ArgsOfShapes | None, getattr(home, "args_of_shapes", None))


def _arguments(recipe: Recipe, given: CheckpointTensors | None, told: ArgsOfShapes | None) -> Mapping[str, Any]:
    """The recipe's arguments of its factory, those that it leaves out as the checkpoint's shapes tell."""
    if given is None or told is None:
        return recipe.model.args
    shapes = {name: tuple(tensor.shape) for name, tensor in given.tensors.items()}
    return _completed(recipe.model.args, told(shapes))


def _completed(said: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings are completed too, at all depths; what is said stands."""
    deeper = {
        name: _completed(value, told[name])
        for name, value in said.items()
        if isinstance(value, Mapping) and isinstance(told.get(name), Mapping)
    }
    return {**told, **said, **deeper}
