"""The engines that run variants, and one way to open a graph in each that runs graphs. Imports no torch, so that the
memory of a graph can be measured alone."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from benchmarks.graph_step import Array, GraphStep

__all__ = ["ENGINE_OF_TARGET", "Engine", "GraphRunner", "open_graph", "why_no_bf16"]


class Engine(enum.StrEnum):
    """An engine with its precision: figures are compared inside one."""

    PYTORCH = "PyTorch"
    ORT = "ONNX Runtime"
    OPENVINO = "OpenVINO"
    OPENVINO_BF16 = "OpenVINO bf16"


ENGINE_OF_TARGET: Mapping[str, Engine] = MappingProxyType(
    {"onnx": Engine.ORT, "ort-cpu": Engine.ORT, "openvino": Engine.OPENVINO}
)
"""What a target's graphs are measured in; targets that are not listed run in none of the engines here."""


class GraphRunner(Protocol):
    """A graph, loaded, with its inputs bound."""

    def run(self) -> None:
        """All the work once; the outputs stay inside."""

    def __call__(self) -> dict[str, Array]:
        """All the work once, and copies of the outputs by name."""


def open_graph(engine: Engine, path: Path, feeds: Mapping[str, Array], threads: int) -> GraphRunner:
    """Load the graph at `path`; `feeds` may hold more than it takes. PyTorch runs no graphs."""
    if engine is Engine.ORT:
        return GraphStep(path, feeds, threads)
    from benchmarks.openvino_step import OpenVinoStep

    return OpenVinoStep(path, feeds, threads, precision="bf16" if engine is Engine.OPENVINO_BF16 else "f32")


def why_no_bf16() -> str:
    """Empty if OpenVINO computes in bfloat16 on this CPU, else the reason why it would not: on other CPUs the hint is
    taken and float32 is computed, which must not be reported as bfloat16."""
    import openvino

    able: list[str] = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "" if "BF16" in able else f"no bf16 on this CPU (OpenVINO lists {', '.join(able)})"
