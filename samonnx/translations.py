"""Translations: our own PyTorch operators → ONNX nodes, for the exporter's table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxscript

from samonnx.errors import SamonnxError
from samonnx.models.roi_align_operator import ROI_ALIGN

__all__ = ["TRANSLATIONS"]

# Its annotations are those of ONNX Script's own functions; while a graph is recorded it takes and gives values.
op: Any = onnxscript.opset23


def _roi_align(features: ir.Value, boxes: ir.Value, size: int) -> ir.Value:
    """`RoiAlign` over all boxes of all images in a row: corners in cells, the centre of the first cell at 0, as many
    samples a bin as it needs."""
    batch, count, channels = _size(boxes, 0), _size(boxes, 1), _size(features, 1)
    image = op.Constant(value=ir.tensor(np.repeat(np.arange(batch, dtype=np.int64), count)))
    pooled = op.RoiAlign(
        features,
        op.Reshape(boxes, op.Constant(value_ints=[batch * count, 4])),
        image,
        mode="avg",
        coordinate_transformation_mode="output_half_pixel",
        output_height=size,
        output_width=size,
        sampling_ratio=0,
        spatial_scale=1.0,
    )
    result: ir.Value = op.Reshape(pooled, op.Constant(value_ints=[batch, count, channels, size, size]))
    return result


def _size(value: ir.Value, axis: int) -> int:
    size = None if value.shape is None else value.shape[axis]
    if not isinstance(size, int):
        raise SamonnxError(f"ROI pooling of {value.name!r}: axis {axis} has no fixed size; trace it with static shapes")
    return size


TRANSLATIONS: Mapping[Callable[..., Any], Callable[..., Any]] = MappingProxyType({ROI_ALIGN: _roi_align})
"""Operator → the function that writes it down in ONNX, at the opset of `trace`."""
