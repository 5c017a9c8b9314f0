"""Static figures of a graph file: nodes, FLOPs, bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from samonnx.passes.shape_inference import infer_shapes
from samonnx.passes.statistics import graph_statistics

__all__ = ["GraphFacts", "graph_facts"]


@dataclass(frozen=True)
class GraphFacts:
    """`flops`: 2 · multiply-accumulates (see `samonnx.passes.statistics`); `uncounted`: nodes of those kinds whose
    shapes are unknown. `file_bytes`: the graph file; `weights_bytes`: the files of external data that it names."""

    opset: int
    nodes: int
    flops: int
    uncounted: int
    file_bytes: int
    weights_bytes: int


def graph_facts(path: Path) -> GraphFacts:
    """Figures of the graph as it is on disk, before the engine's own optimisation."""
    model = ir.load(path)
    infer_shapes(model)
    found = graph_statistics(model)
    stored = (value.const_value for graph in model.graphs() for value in graph.initializers.values())
    files = {Path(tensor.path) for tensor in stored if isinstance(tensor, ir.ExternalTensor)}
    return GraphFacts(
        opset=model.graph.opset_imports[""],
        nodes=found.nodes,
        flops=found.flops,
        uncounted=len(found.uncounted),
        file_bytes=path.stat().st_size,
        weights_bytes=sum(file.stat().st_size for file in files),
    )
