"""The opset that emitted graphs declare."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from samonnx.graph_session import GraphSession
from samonnx.passes.lower.opset import LowerOpset

ROI_ALIGN = """
<ir_version: 10, opset_import: ["" : 23]>
g (float[1,2,8,8] x, float[3,4] rois) => (float[3,2,7,7] y)
<int64[3] image = {0, 0, 0}>
{
    y = RoiAlign <mode = "avg", coordinate_transformation_mode = "output_half_pixel", output_height = 7,
                  output_width = 7, sampling_ratio = 0, spatial_scale = 1.0> (x, rois, image)
}
"""


def graph(body: str) -> ir.Model:
    return ir.from_onnx_text(
        f'<ir_version: 10, opset_import: ["" : 23]>\ng (float[1,2,4,4] x) => (float[1,2,4,4] y) {{ {body} }}'
    )


def test_a_graph_of_lasting_operators_declares_the_older_opset_and_stays_legal() -> None:
    model = graph("h = Relu(x) y = Mul(h, h)")
    assert LowerOpset()(model).modified
    assert model.opset_imports[""] == 21
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    assert not LowerOpset()(model).modified


@pytest.mark.parametrize("body", ["y = Attention(x, x, x)", "h = Relu(x) y = Attention(h, h, x)"])
def test_an_operator_that_the_older_opset_lacks_keeps_the_newer_one(body: str) -> None:
    model = graph(body)
    assert not LowerOpset()(model).modified
    assert model.opset_imports[""] == 23


def test_an_operator_with_another_signature_keeps_the_newer_one() -> None:
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 23]>\ng (float[4] x, float s, int8 z) => (int8[4] y) '
        "{ y = QuantizeLinear(x, s, z) }"
    )
    assert not LowerOpset()(model).modified


def test_operators_of_other_domains_do_not_matter() -> None:
    model = graph("y = Relu(x)")
    model.graph.node(0).domain = "com.example"
    assert LowerOpset()(model).modified


def test_roi_align_runs_in_onnx_runtime_after_it_and_not_before() -> None:
    model = ir.from_onnx_text(ROI_ALIGN)
    feeds = {
        "x": np.random.default_rng(0).standard_normal((1, 2, 8, 8)).astype(np.float32),
        "rois": np.array([[0, 0, 7, 7], [1.5, 2, 3, 6], [-2, -2, 9, 12]], np.float32),
    }
    with pytest.raises(Exception, match="Could not find an implementation for RoiAlign"):
        GraphSession(model)
    LowerOpset()(model)
    assert np.isfinite(GraphSession(model).run(feeds)["y"]).all()
