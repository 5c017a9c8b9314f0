"""The pass `pin_inputs`: partial evaluation, a graph input becomes a constant."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from samonnx.errors import SamonnxError
from samonnx.passes.graph_values import add_constant, replace_value, static_shape
from samonnx.passes.interface import Array, Exactness, GraphPass, PassResult

__all__ = ["PinInputError", "PinInputs"]


class PinInputError(SamonnxError):
    """A pinned value that does not fit the graph: unknown input, wrong dtype, wrong shape."""


@dataclass(frozen=True, eq=False)
class PinInputs(GraphPass):
    """Replace graph inputs by constants, and take them off the list of inputs.

        x (input) ── Op ── y   →   constant ── Op ── y

    Follow it by `fold_constants`, which evaluates what has become constant. `track@first` is `track` with an empty
    bank pinned.

    Exact:    bit-exact for callers that would have fed these values.
    Declines: names that are no inputs, values of another dtype or shape: an error that names the known inputs.
    Cost:     uniform values above 4 KiB become `ConstantOfShape`; others add their bytes to the initialisers.

    Attributes:
        values: input name → array of the input's dtype and shape (a symbolic dimension takes any length), or a
            bool, int or float that fills an input of static shape.
    """

    name: ClassVar[str] = "pin_inputs"
    exactness: ClassVar[Exactness] = Exactness.BIT_EXACT
    tolerance: ClassVar[float] = 0.0

    values: Mapping[str, Array | bool | int | float] = field(default_factory=dict)

    def call(self, model: ir.Model) -> PassResult:
        """Raises `PinInputError`, before anything is changed, when a value does not fit."""
        arrays = self._arrays(model)
        for name, array in arrays.items():
            _pin(model.graph, name, array)
        return PassResult(model, bool(arrays))

    def feeds_before(self, feeds_after: Mapping[str, Array], before: ir.Model) -> dict[str, Array]:
        """The same feeds and the pinned values."""
        return {**feeds_after, **self._arrays(before)}

    def _arrays(self, model: ir.Model) -> dict[str, Array]:
        inputs = {str(value.name): value for value in model.graph.inputs}
        return {name: _fitting(value, _known(name, inputs)) for name, value in self.values.items()}


def _known(name: str, inputs: Mapping[str, ir.Value]) -> ir.Value:
    if name in inputs:
        return inputs[name]
    close = difflib.get_close_matches(name, inputs)
    hint = f"; did you mean {', '.join(close)}?" if close else ""
    listed = ", ".join(_described(value) for value in inputs.values()) or "none"
    raise PinInputError(f"cannot pin {name!r}: the graph has no such input{hint}\nknown inputs: {listed}")


def _described(value: ir.Value) -> str:
    dtype = value.dtype.name.lower() if value.dtype is not None else "?"
    dims = ",".join(str(dim) for dim in value.shape) if value.shape is not None else "?"
    return f"{value.name} {dtype}[{dims}]"


def _fitting(value: Array | bool | int | float, port: ir.Value) -> Array:
    """`value` as an array of the dtype and shape of `port`."""
    if port.dtype is None:
        raise PinInputError(f"cannot pin {port.name!r}: the graph does not say its dtype")
    dtype = port.dtype.numpy()
    if isinstance(value, np.ndarray):
        if value.dtype != dtype:
            raise PinInputError(f"cannot pin {_described(port)}: the value has dtype {value.dtype}, expected {dtype}")
        wanted = None if port.shape is None else tuple(port.shape)
        if wanted is not None and (
            len(wanted) != value.ndim
            or any(isinstance(dim, int) and dim != size for dim, size in zip(wanted, value.shape, strict=True))
        ):
            raise PinInputError(f"cannot pin {_described(port)}: the value has shape {list(value.shape)}")
        return value
    shape = static_shape(port)
    if shape is None:
        raise PinInputError(f"cannot pin {_described(port)} to {value!r}: its shape is not static; give an array")
    return np.broadcast_to(_scalar(value, port, dtype), shape)


def _scalar(value: bool | int | float, port: ir.Value, dtype: np.dtype) -> Array:
    kinds: tuple[type, ...] = {"b": (bool, np.bool_), "i": (int, np.integer), "u": (int, np.integer)}.get(
        dtype.kind, (int, float, np.number)
    )
    if not isinstance(value, kinds) or (dtype.kind != "b" and isinstance(value, bool)):
        expected = {"b": "true or false", "i": "an integer", "u": "an integer"}.get(dtype.kind, "a number")
        raise PinInputError(f"cannot pin {_described(port)} to {value!r}: expected {expected}")
    try:
        return np.array(value, dtype)
    except OverflowError as error:
        raise PinInputError(f"cannot pin {_described(port)} to {value!r}: out of the range of {dtype}") from error


def _pin(graph: ir.Graph, name: str, array: Array) -> None:
    port = next(value for value in graph.inputs if value.name == name)
    graph.inputs.remove(port)
    graph.initializers.pop(name, None)  # the default value of an optional input
    replace_value(graph, port, add_constant(graph, f"{name}/pinned", array))
