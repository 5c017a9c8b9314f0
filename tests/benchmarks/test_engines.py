"""Graphs as variants: the same numbers in both engines, whatever else is fed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from benchmarks.engines import ENGINE_OF_TARGET, Engine, open_graph
from benchmarks.operator_profile import profile_graph
from samonnx.recipe import Recipe

GRAPH = """<ir_version: 10, opset_import: ["" : 21]>
small (float[2,3] image, bool[2,1] taken, int32 frame) => (float[2,3] chosen, int32 next) {
    zero = Constant<value = float {0.0}>()
    one = Constant<value = int32 {1}>()
    chosen = Where(taken, image, zero)
    next = Add(frame, one)
}"""
FEEDS = {
    "image": np.arange(6, dtype=np.float32).reshape(3, 2).T,
    "taken": np.array([[True], [False]]),
    "frame": np.array(6, np.int32),
    "not.taken": np.zeros(3, np.float32),
}


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    ir.save(ir.from_onnx_text(GRAPH), tmp_path / "small.onnx")
    return tmp_path / "small.onnx"


@pytest.mark.parametrize("engine", [Engine.ORT, Engine.OPENVINO])
def test_scalars_flags_strided_arrays_and_further_feeds_are_taken(engine: Engine, graph: Path) -> None:
    runner = open_graph(engine, graph, FEEDS, threads=1)
    outputs = runner()
    assert np.array_equal(outputs["chosen"], [[0, 2, 4], [0, 0, 0]])
    assert outputs["next"] == 7
    outputs["chosen"][:] = -1
    runner.run()
    assert np.array_equal(runner()["chosen"], [[0, 2, 4], [0, 0, 0]]), "outputs are copies"


@pytest.mark.parametrize("engine", [Engine.ORT, Engine.OPENVINO])
def test_a_profile_counts_a_step(engine: Engine, tmp_path: Path) -> None:
    ir.save(
        ir.from_onnx_text(
            '<ir_version: 10, opset_import: ["" : 21]> one (float[64,64] a) => (float[64,64] c) { c = MatMul(a, a) }'
        ),
        tmp_path / "one.onnx",
    )
    rows = profile_graph(tmp_path / "one.onnx", {"a": np.ones((64, 64), np.float32)}, 1, engine, steps=3)
    assert [row.calls for row in rows if row.operator == "MatMul"] == [1]


def test_every_target_of_a_recipe_has_an_engine() -> None:
    targets = Recipe.model_json_schema()["properties"]["targets"]["items"]["enum"]
    assert set(targets) <= set(ENGINE_OF_TARGET)
