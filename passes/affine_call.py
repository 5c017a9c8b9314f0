"""One node that scales and shifts each channel by constants, read as what it computes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from samonnx.passes.graph_values import constant_array, static_shape
from samonnx.passes.interface import Array

__all__ = ["AffineCall", "UnreadableAffineError", "read_affine"]

_OPERATORS = frozenset({"BatchNormalization", "Add", "Sub", "Mul", "Div"})


class UnreadableAffineError(Exception):
    """Why a node is not an affine map of each channel."""


@dataclass(frozen=True)
class AffineCall:
    """`node` computes data · scale + shift; `scale` and `shift` are float64 [channels] of one axis of `data`.

    `data` and the output have the same static shape and dtype.
    """

    node: ir.Node
    data: ir.Value
    scale: Array
    shift: Array

    @property
    def output(self) -> ir.Value:
        """Of the shape of `data`."""
        return self.node.outputs[0]

    @property
    def shifts(self) -> bool:
        """Whether any channel is shifted."""
        return bool(self.shift.any())


def read_affine(node: ir.Node | None, axis: int) -> AffineCall:
    """`BatchNormalization`, `Add`, `Sub`, `Mul` or `Div` as a map of the channels along `axis` (counted from 0).

    Raises `UnreadableAffineError`: another operator, constants that differ along other axes, no constant, training
    form or further outputs, a divisor 0, parameters that are not finite, symbolic shapes, dtypes other than float32
    and float64.
    """
    if node is None or node.op_type not in _OPERATORS or node.domain:
        raise UnreadableAffineError("not an affine operator")
    if node.op_type == "BatchNormalization":
        return _finite(_normalization(node, axis))
    left, right = node.inputs
    constant_first = constant_array(left) is not None
    data, parameter = (right, left) if constant_first else (left, right)
    if data is None or constant_array(data) is not None:
        raise UnreadableAffineError("all its operands are constant")
    channels = _per_channel(parameter, axis, _kept_shape(node, data))
    if not np.isfinite(channels).all():
        raise UnreadableAffineError("its constant is not finite")
    one, zero = np.ones_like(channels), np.zeros_like(channels)
    match node.op_type, constant_first:
        case "Add", _:
            found = AffineCall(node, data, one, channels)
        case "Sub", False:
            found = AffineCall(node, data, one, -channels)
        case "Sub", True:
            found = AffineCall(node, data, -one, channels)
        case "Mul", _:
            found = AffineCall(node, data, channels, zero)
        case "Div", False if channels.all():
            found = AffineCall(node, data, 1 / channels, zero)
        case _:
            raise UnreadableAffineError("it divides by its data or by 0")
    return _finite(found)


def _normalization(node: ir.Node, axis: int) -> AffineCall:
    """(data − mean) / √(variance + ε) · scale + bias; channels are along axis 1."""
    data, *parameters = node.inputs
    if data is None or axis != 1 or len(parameters) != 4:
        raise UnreadableAffineError("its channels are along another axis")
    if node.attributes.get_int("training_mode", 0) or any(output.name for output in node.outputs[1:]):
        raise UnreadableAffineError("it is in the form for training")
    shape = _kept_shape(node, data)
    arrays = [constant_array(parameter) for parameter in parameters]
    if len(shape) < 2 or any(array is None or array.shape != (shape[1],) for array in arrays):
        raise UnreadableAffineError("its parameters are not constant")
    weight, bias, mean, variance = (array.astype(np.float64) for array in arrays if array is not None)
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    if not (variance + epsilon > 0).all():
        raise UnreadableAffineError("a variance is not positive")
    scale = weight / np.sqrt(variance + epsilon)
    return AffineCall(node, data, scale, bias - mean * scale)


def _kept_shape(node: ir.Node, data: ir.Value) -> tuple[int, ...]:
    """The shape of `data`, which the node keeps."""
    shape = static_shape(data)
    if shape is None or shape != static_shape(node.outputs[0]):
        raise UnreadableAffineError(f"{data.name} has shape {data.shape}; the output has {node.outputs[0].shape}")
    if data.dtype not in (ir.DataType.FLOAT, ir.DataType.DOUBLE) or data.dtype != node.outputs[0].dtype:
        raise UnreadableAffineError(f"its dtype is {data.dtype}")
    return shape


def _per_channel(value: ir.Value | None, axis: int, shape: tuple[int, ...]) -> Array:
    """The constant `value`, which broadcasts to `shape` and varies along `axis` only, as float64 [channels]."""
    array = constant_array(value)
    if array is None or array.ndim > len(shape):
        raise UnreadableAffineError("it has no constant operand")
    if axis not in range(len(shape)) or not shape[axis]:
        raise UnreadableAffineError("it has no channels")
    aligned = (*(1,) * (len(shape) - array.ndim), *array.shape)
    if aligned[axis] not in (1, shape[axis]) or any(size != 1 for at, size in enumerate(aligned) if at != axis):
        raise UnreadableAffineError(f"its constant has shape {array.shape}; expected one number a channel")
    channels = array.reshape(-1).astype(np.float64)
    return np.array(np.broadcast_to(channels, (shape[axis],)))


def _finite(call: AffineCall) -> AffineCall:
    if not (np.isfinite(call.scale).all() and np.isfinite(call.shift).all()):
        raise UnreadableAffineError("its parameters are not finite")
    return call
