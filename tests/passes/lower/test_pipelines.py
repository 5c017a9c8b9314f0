from __future__ import annotations

import pytest

from samonnx.passes.interface import Exactness, GraphPass
from samonnx.passes.lower import ONNX_PASSES, ORT_CPU_PASSES


@pytest.mark.parametrize("passes", [ONNX_PASSES, ORT_CPU_PASSES])
def test_every_pipeline_ends_with_what_takes_any_attention_left_over(passes: tuple[GraphPass, ...]) -> None:
    assert [pass_.name for pass_ in passes[-2:]] == ["lower_onnx", "lower_opset"]
    assert all(pass_.exactness is not Exactness.APPROXIMATE for pass_ in passes)
    assert all(pass_.tolerance <= 1e-5 for pass_ in passes)
