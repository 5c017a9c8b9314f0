"""A program as one module: its components in eager PyTorch, called in order; and that as a variant to measure.

Unlike `samonnx.eager_program.EagerRun` it keeps no results, so that every call does all the work.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from samonnx.graph_session import Array
from samonnx.programs.program import Program

__all__ = ["EagerProgram", "WholeProgram"]


class WholeProgram(nn.Module):
    """Takes the program's inputs and returns its outputs, both in the order of its ports. For programs without memory:
    symbolic axes of components are taken as they come."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.program = program
        self.parts = nn.ModuleDict({component.name: component.module for component in program.components})
        self._sources = {wire.target: wire.source for wire in program.wires}

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        values = {port.name: tensor for port, tensor in zip(self.program.inputs, inputs, strict=True)}
        for component in self.program.components:
            given = (values[self._sources[f"{component.name}.{name}"]] for name in component.inputs)
            returned = self.parts[component.name](*given)
            results = returned if isinstance(returned, tuple) else (returned,)
            for name, tensor in zip(component.outputs, results, strict=True):
                values[f"{component.name}.{name}"] = tensor
        return tuple(values[self._sources[port.name]] for port in self.program.outputs)


class EagerProgram:
    """Callable: runs the program in inference mode on `feeds` (perhaps among others) and returns its outputs by
    port."""

    def __init__(self, program: Program, feeds: Mapping[str, Array]) -> None:
        self._module = WholeProgram(program).eval()
        self._inputs = tuple(torch.from_numpy(feeds[port.name]) for port in program.inputs)
        self._outputs = tuple(port.name for port in program.outputs)

    @torch.inference_mode()
    def __call__(self) -> dict[str, Array]:
        returned = self._module(*self._inputs)
        return {name: tensor.numpy() for name, tensor in zip(self._outputs, returned, strict=True)}
