"""The graphs that the laws of the memory policies are tried on, compiled once for all processes of a test run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.compiled_artifact import compiled_folder

from .equal_step import OpenedGraph
from .policies import POLICIES

OpenPolicy = Callable[[str], OpenedGraph]


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
