"""Encoders that have run: maps are known for the same encoder, target and frame only, and what is behind them computes
what the whole graph does."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from samonnx.encoder_runs import EncoderRuns, behind
from samonnx.graph_session import Array, GraphSession
from samonnx.passes.shape_inference import infer_shapes
from samonnx.probed import probed
from tests.passes.graph_text import model_of

GRAPH = """(float[2] image, float[2] z) => (float[2] y, float[2] kept)
<float[2] w = {2, 3}>
{ h = Mul(image, w)  map = Sin(h)  k = Exp(map)  kept = Add(w, z)  y = Add(k, z) }"""
CALLED = {"features": "map"}
MAPS: dict[str, Array] = {"features": np.ones(2, np.float32)}


def typed_graph() -> ir.Model:
    """With the types of the values inside, as compiled graphs have them."""
    model = model_of(GRAPH)
    infer_shapes(model)
    return model


def test_maps_are_known_for_their_target_encoder_and_frame() -> None:
    runs, graph = EncoderRuns(), model_of(GRAPH)
    encoder = runs.fingerprint(graph, CALLED)
    assert encoder is not None
    runs.record("onnx", encoder, 0, MAPS)
    assert runs.known("onnx", encoder, 0) == MAPS
    assert runs.known("onnx", encoder, 1) is None
    assert runs.known("ort-cpu", encoder, 0) is None
    assert runs.known("onnx", runs.fingerprint(model_of(GRAPH.replace("Sin", "Cos")), CALLED), 0) is None
    assert runs.known("onnx", runs.fingerprint(model_of(GRAPH.replace("Exp", "Cos")), CALLED), 0) == MAPS


def test_an_encoder_whose_maps_were_folded_away_is_never_known() -> None:
    runs = EncoderRuns()
    encoder = runs.fingerprint(model_of(GRAPH), {"features": "gone"})
    assert encoder is None
    runs.record("onnx", encoder, 0, MAPS)
    assert runs.known("onnx", encoder, 0) is None


def test_behind_the_maps_is_the_rest_of_the_graph() -> None:
    graph = typed_graph()
    rest = behind(graph, {"map": "given.features"})
    assert [value.name for value in rest.graph.inputs] == ["image", "z", "given.features"]
    assert [node.op_type for node in rest.graph] == ["Exp", "Add", "Add"]
    assert [node.op_type for node in graph.graph] == ["Mul", "Sin", "Exp", "Add", "Add"], "the graph is as it was"
    feeds = {"image": np.array([0.3, -2], np.float32), "z": np.array([1, 5], np.float32)}
    whole = GraphSession(probed(graph, ("map",))).run(feeds)
    found = GraphSession(rest).run(feeds | {"given.features": whole["map"]})
    for name in ("y", "kept"):
        np.testing.assert_array_equal(found[name], whole[name])


def test_what_is_given_matters() -> None:
    rest = GraphSession(behind(typed_graph(), {"map": "given.features"}))
    feeds = {"image": np.zeros(2, np.float32), "z": np.zeros(2, np.float32)}
    found = [rest.run(feeds | {"given.features": np.full(2, x, np.float32)})["y"][0] for x in (0, 1)]
    assert found == pytest.approx([1, np.e], rel=1e-6)


def test_an_output_cannot_be_given() -> None:
    text = "(float[2] image) => (float[2] map, float[2] y) { map = Sin(image) y = Neg(map) }"
    with pytest.raises(ValueError, match="map is an output of graph 'graph'; expected a value of its inside"):
        behind(model_of(text), {"map": "given.features"})
