"""Image encoders in verification: one that has run is not run again, and one that differs in a single weight is."""

from __future__ import annotations

from typing import cast

import numpy as np
import onnx_ir as ir
import pytest
from rich.console import Console

from samonnx.build_model import build_model
from samonnx.compile import CompileOptions, compile_recipe
from samonnx.engines import RunnableGraph
from samonnx.graph_session import GraphSession
from samonnx.models.tracker import TrackedModel
from samonnx.programs.predict import encode_frame_program
from samonnx.programs.program import Program
from samonnx.recipe import load_recipe
from samonnx.verify_program import ProgramVerifier
from tests.compiled_artifact import TINY

RECIPE = TINY.with_name("sam2_tiny.yaml")
TOLERANCE = 1e-4


class Sessions:
    """Opens graphs in ONNX Runtime and counts them."""

    def __init__(self) -> None:
        self.opened = 0

    def open(self, model: ir.Model) -> RunnableGraph:
        self.opened += 1
        return GraphSession(model, threads=1)


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ir.Model]:
    """Target → the graph of `encode_image`."""
    folder = tmp_path_factory.mktemp("encoders") / "sam2_tiny"
    compile_recipe(RECIPE, CompileOptions(output=folder, programs=("encode_image",)), Console(quiet=True))
    return {"onnx": ir.load(folder / "encode_image.onnx"), "ort-cpu": ir.load(folder / "encode_image.ort-cpu.onnx")}


@pytest.fixture(scope="module")
def model() -> TrackedModel:
    return cast(TrackedModel, build_model(load_recipe(RECIPE)).module)


@pytest.fixture(scope="module")
def program(model: TrackedModel) -> Program:
    return encode_frame_program(model)


def test_the_same_graph_for_another_target_of_the_same_engine_is_not_run_again(
    graphs: dict[str, ir.Model], model: TrackedModel, program: Program
) -> None:
    sessions, verifier = Sessions(), ProgramVerifier(model, TOLERANCE)
    first = verifier.verify(graphs["onnx"], program, sessions.open, "onnx")
    second = verifier.verify(graphs["onnx"].clone(), program, sessions.open, "ort-cpu")
    assert sessions.opened == 1
    assert second == first
    assert {one.what for one in first} == {"high_res_0", "high_res_1", "features"}
    assert all(one.ok for one in first)


def test_a_graph_with_another_weight_runs_and_is_found_out(
    graphs: dict[str, ir.Model], model: TrackedModel, program: Program
) -> None:
    sessions, verifier = Sessions(), ProgramVerifier(model, TOLERANCE)
    verifier.verify(graphs["onnx"], program, sessions.open, "onnx")
    spoilt = graphs["onnx"].clone()
    name, value = max(
        spoilt.graph.initializers.items(),
        key=lambda item: 0 if item[1].const_value is None else item[1].const_value.size,
    )
    assert value.const_value is not None
    value.const_value = ir.tensor((value.const_value.numpy() * np.float32(1.5)).astype(np.float32), name=name)
    found = verifier.verify(spoilt, program, sessions.open, "ort-cpu")
    assert sessions.opened == 2
    assert not all(one.ok for one in found)
