"""`torch.compile` of the eager modules as a variant: PyTorch's own compiler (Inductor), which writes C++ and needs a
compiler for it. Static shapes, default mode.

Where it does not work, or takes longer than `PATIENCE`, the benchmark says so: a process of its own tries it first.
What that one compiled is in Inductor's cache on disk, so that the benchmark's own process has it soon.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.whole_program import WholeProgram
from samonnx.graph_session import Array
from samonnx.programs.program import Program

__all__ = ["PATIENCE", "CompiledModule", "compiled_program"]

PATIENCE = 600.0
"""Seconds that compiling and two steps may take."""


class CompiledModule:
    """Callable: runs the compiled `module` on `inputs` and returns its outputs under the names `outputs`. The first
    call compiles."""

    def __init__(self, module: nn.Module, inputs: Sequence[Tensor], outputs: Sequence[str]) -> None:
        self._module = torch.compile(module.eval(), dynamic=False)
        self._inputs, self._outputs = tuple(inputs), tuple(outputs)

    @torch.inference_mode()
    def __call__(self) -> dict[str, Array]:
        returned = self._module(*self._inputs)
        return {name: np.array(tensor.numpy()) for name, tensor in zip(self._outputs, returned, strict=False)}


def compiled_program(program: Program, feeds: Mapping[str, Array]) -> CompiledModule:
    """The program's components in eager PyTorch as one compiled module; `feeds` may hold more than its inputs."""
    inputs = [torch.from_numpy(feeds[port.name]) for port in program.inputs]
    return CompiledModule(WholeProgram(program), inputs, [port.name for port in program.outputs])
