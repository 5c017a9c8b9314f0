"""Sessions on compiled variants of the tiny recipe, shared by all test processes of a run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from samonnx.runtime.session import Session

from .artifacts import compiled_folder

Compile = Callable[..., Session]


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Compile:
    """`compiled(*overrides, target="onnx", program="track")` → a session on the emitted graph."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    sessions: dict[tuple[str, ...], Session] = {}

    def compile_(*overrides: str, target: str = "onnx", program: str = "track") -> Session:
        key = (*overrides, target, program)
        if key not in sessions:
            sessions[key] = Session(compiled_folder(shared, overrides), program=program, target=target, threads=1)
        return sessions[key]

    return compile_
