"""Sessions on compiled variants of the tiny recipe, shared by all test processes of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from samonnx.runtime.session import Session
from tests.compiled_artifact import TINY, compiled_folder

Compile = Callable[..., Session]


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Callable[..., Path]:
    """`artifacts(*overrides, programs=(), recipe=TINY)` → the artifact folder of the tiny recipe with these overrides;
    all of its programs by default."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    return lambda *overrides, programs=(), recipe=TINY: compiled_folder(shared, overrides, programs, recipe)


@pytest.fixture(scope="session")
def compiled(artifacts: Callable[..., Path]) -> Compile:
    """`compiled(*overrides, target="onnx", program="track")` → a session on the emitted graph. Of a variant only the
    program and its specialisations are compiled."""
    sessions: dict[tuple[str, ...], Session] = {}

    def compile_(*overrides: str, target: str = "onnx", program: str = "track") -> Session:
        key = (*overrides, target, program)
        if key not in sessions:
            family = ("track", "track@first") if program.startswith("track") else (program,)
            folder = artifacts(*overrides, programs=family if overrides else ())
            sessions[key] = Session(folder, program=program, target=target, threads=1)
        return sessions[key]

    return compile_
