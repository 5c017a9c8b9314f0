"""The straightforward export of a whole program: what `torch.onnx.export` makes of the same modules, called in order
as one module. The exporter's standard settings, the opset that samonnx traces at; nothing of samonnx's passes.

With one concession. ROI pooling would become the operator `RoiAlign`, for which ONNX Runtime has no CPU kernel from
opset 22 on, so what this export really gives is an error when a session is made. To have something that runs, it is
replaced by the same sums in PyTorch's own operators (`samonnx.models.roi_align`), as eager PyTorch computes it here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from benchmarks.whole_program import WholeProgram
from samonnx.graph_session import Array
from samonnx.models.roi_align import roi_align
from samonnx.models.roi_align_operator import ROI_ALIGN
from samonnx.programs.program import Program
from samonnx.trace import OPSET, quiet_exporter

__all__ = ["export_whole_program"]


def export_whole_program(program: Program, feeds: Mapping[str, Array], path: Path) -> None:
    """Write the graph to `path` (weights beside it, in `<path>.data`); inputs and outputs are named by the ports.

    `feeds` are examples, perhaps among others; all shapes are static.
    """
    examples = tuple(torch.from_numpy(feeds[port.name]) for port in program.inputs)
    with quiet_exporter(), torch.no_grad():
        exported = torch.export.export(WholeProgram(program).eval(), examples)
        torch.onnx.export(
            exported.run_decompositions({ROI_ALIGN: roi_align}),
            (),
            path,
            dynamo=True,
            opset_version=OPSET,
            input_names=[port.name for port in program.inputs],
            output_names=[port.name for port in program.outputs],
            verbose=False,
        )
