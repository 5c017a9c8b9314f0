from __future__ import annotations

import pytest

from samonnx.passes.interface import Exactness, GraphPass
from samonnx.passes.lower import ONNX_PASSES, OPENVINO_PASSES, ORT_CPU_PASSES


@pytest.mark.parametrize("passes", [ONNX_PASSES, ORT_CPU_PASSES, OPENVINO_PASSES])
def test_every_pipeline_ends_with_what_takes_any_attention_left_over(passes: tuple[GraphPass, ...]) -> None:
    assert passes[-2].name in ("lower_onnx", "lower_openvino")
    assert passes[-1].name == "lower_opset"
    assert all(pass_.exactness is not Exactness.APPROXIMATE for pass_ in passes)
    assert all(pass_.tolerance <= 1e-5 for pass_ in passes)
