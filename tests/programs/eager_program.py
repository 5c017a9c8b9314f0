"""A program run without tracing: its components in eager PyTorch, joined by its wires."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from samonnx.models.efficientsam3 import EfficientSAM3
from samonnx.programs.program import Program
from samonnx.programs.track import BANK, track_program
from samonnx.recipe import Recipe
from tests.tiny_model import tiny_model

__all__ = ["idle_feeds", "program_of", "run_program"]


def run_program(program: Program, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Outputs by name, and the image encoder's maps under the names that they have in the linked graph.

    Attention gets the slots that are valid for the first object alone, which is what `unroll_memory` promises for the
    padded ones: for one object, or for several with the same bank.
    """
    values = dict(feeds)
    sources = {wire.target: wire.source for wire in program.wires}
    for component in program.components:
        given = [values[sources[f"{component.name}.{name}"]] for name in component.inputs]
        if component.name == "attend_memory":
            valid = {symbol: values[sources[f"attend_memory.{name}"]][0] for symbol, name in component.validity.items()}
            if not valid["memory_slots"].any():
                # what attention gives without a key: nothing may depend on it
                values["attend_memory.conditioned"] = torch.full_like(component.inputs["features"], torch.nan).expand(
                    values["point_labels"].shape[0], -1, -1, -1
                )
                continue
            for index, name in enumerate(component.inputs):
                for symbol in component.symbolic.get(name, {}).values():
                    given[index] = given[index][:, valid[symbol]]
        result = component.module(*given)
        result = result if isinstance(result, tuple) else (result,)
        values |= {f"{component.name}.{name}": t for name, t in zip(component.outputs, result, strict=True)}
    maps = {name.replace(".", "/"): tensor for name, tensor in values.items() if name.startswith("encode_image.")}
    return {port.name: values[sources[port.name]] for port in program.outputs} | maps


def program_of(recipe: Recipe, model: EfficientSAM3 | None = None) -> Program:
    return track_program(model or tiny_model(), recipe.memory, recipe.programs["track"])


def idle_feeds(program: Program) -> dict[str, Tensor]:
    dtypes = {"float32": torch.float32, "int32": torch.int32, "bool": torch.bool}
    feeds = {port.name: torch.zeros(port.shape, dtype=dtypes[port.dtype]) for port in program.inputs}
    feeds |= {t.input: torch.full_like(feeds[t.input], t.empty) for t in BANK}
    feeds["point_labels"] = torch.full_like(feeds["point_labels"], -1)
    feeds["attend_memory"] = torch.ones_like(feeds["attend_memory"])
    return feeds
