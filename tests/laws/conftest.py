"""The graphs that the laws of the memory policies are tried on, compiled once for all processes of a test run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.compiled_artifact import compiled_folder

from .equal_step import OpenedGraph
from .policies import POLICIES
from .xmem_scenario import RECIPE, XMemGraphs

OpenPolicy = Callable[[str], OpenedGraph]
OpenXMem = Callable[..., XMemGraphs]


@pytest.fixture(scope="session")
def graph_of(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> OpenPolicy:
    """`graph_of(policy)` → `track` of one of POLICIES."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    opened: dict[str, OpenedGraph] = {}

    def open_(policy: str) -> OpenedGraph:
        if policy not in opened:
            variant = POLICIES[policy]
            folder = compiled_folder(shared, variant.overrides, ("track",), variant.path, ("onnx",))
            opened[policy] = OpenedGraph(folder)
        return opened[policy]

    return open_


@pytest.fixture(scope="session")
def xmem_graphs(artifacts: Callable[..., Path]) -> OpenXMem:
    """`xmem_graphs(*overrides, target="onnx", programs=())` → the graphs of the tiny XMem recipe."""
    opened: dict[tuple[str, ...], XMemGraphs] = {}

    def open_(*overrides: str, target: str = "onnx", programs: tuple[str, ...] = ()) -> XMemGraphs:
        key = (*overrides, target, *programs)
        if key not in opened:
            opened[key] = XMemGraphs(artifacts(*overrides, programs=programs, recipe=RECIPE), target)
        return opened[key]

    return open_
