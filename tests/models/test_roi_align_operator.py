"""The operator that a trace holds for ROI pooling: its numbers, its declared shape, and that it stays one node."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from samonnx.models.roi_align import roi_align
from samonnx.models.roi_align_operator import ROI_ALIGN, pooled_boxes

SIZE = 7


def inputs(images: int, boxes: int, height: int = 6, width: int = 8) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(images + 10 * boxes)
    features = torch.randn(images, 3, height, width, generator=random)
    return features, torch.rand(images, boxes, 4, generator=random) * 12 - 2


class Pool(nn.Module):
    def forward(self, features: Tensor, boxes: Tensor) -> Tensor:
        return pooled_boxes(features, boxes, SIZE)


@given(
    images=st.integers(1, 3),
    boxes=st.integers(1, 4),
    height=st.integers(2, 9),
    width=st.integers(2, 9),
    size=st.integers(1, SIZE),
)
@settings(max_examples=30, deadline=None)
def test_in_pytorch_it_is_roi_align_bit_for_bit(images: int, boxes: int, height: int, width: int, size: int) -> None:
    given = inputs(images, boxes, height, width)
    found = pooled_boxes(*given, size)
    assert torch.equal(found, roi_align(*given, size))
    assert found.is_contiguous()


@given(images=st.integers(1, 3), boxes=st.integers(1, 4), size=st.integers(1, SIZE))
@settings(max_examples=20, deadline=None)
def test_the_shape_that_it_declares_is_that_of_its_result(images: int, boxes: int, size: int) -> None:
    features, places = inputs(images, boxes)
    declared = pooled_boxes(features.to("meta"), places.to("meta"), size)
    result = pooled_boxes(features, places, size)
    assert (declared.shape, declared.dtype) == (result.shape, result.dtype)


def test_it_keeps_pytorchs_rules_for_operators() -> None:
    """Its arguments are unchanged, its result is no view of them, and tracing it gives the same numbers."""
    checks = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    found = torch.library.opcheck(ROI_ALIGN, (*inputs(2, 3), SIZE), test_utils=checks)
    assert found == dict.fromkeys(checks, "SUCCESS")


def test_a_trace_holds_one_node_for_it() -> None:
    exported = torch.export.export(Pool().eval(), inputs(2, 3))
    called = [node.target for node in exported.graph.nodes if node.op == "call_function"]
    assert called == [ROI_ALIGN]
