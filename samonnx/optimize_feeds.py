"""Inputs that a foreign graph can be run on: sizes for its symbolic axes, and values that mean something to it.

Nobody says what an exported graph's inputs stand for, so several guesses are made; the first that the original graph
runs on is used. Integers that index a constant table stay within the table.
"""

from __future__ import annotations

import difflib
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from samonnx.optimize_result import OptimizeError
from samonnx.passes.graph_values import constant_array, static_shape
from samonnx.passes.interface import Array

__all__ = ["FeedChoices", "Guess", "guesses", "make_feeds", "required_inputs"]

Range = tuple[float, float]

_SMALL = (2, 3, 5, 4, 7, 6, 9, 8, 11, 10)
_KEEP_ELEMENTS = frozenset(
    {"Cast", "Reshape", "Unsqueeze", "Squeeze", "Flatten", "Identity", "Transpose", "Slice", "Concat", "Expand"}
)
_MOST_STEPS = 64


@dataclass(frozen=True)
class FeedChoices:
    """What the user says about inputs: shapes by input, and [low, high] of their values (integers: both included)."""

    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    ranges: Mapping[str, Range] = field(default_factory=dict)

    def check(self, graph: ir.Graph) -> None:
        """Raises OptimizeError for a name that is no input, or a shape that does not fit the declared one."""
        inputs = {str(value.name): value for value in graph.inputs}
        for option, names in (("--shape", self.shapes), ("--range", self.ranges)):
            for name in names:
                if name not in inputs:
                    close = difflib.get_close_matches(name, inputs)
                    hint = f"did you mean {', '.join(close)}?" if close else f"inputs: {', '.join(inputs) or 'none'}"
                    raise OptimizeError(f"{option} {name}=…: the graph has no such input; {hint}")
        for name, shape in self.shapes.items():
            declared = inputs[name].shape
            if declared is not None and (
                len(declared) != len(shape)
                or any(isinstance(d, int) and d != s for d, s in zip(declared, shape, strict=True))
            ):
                given = "x".join(map(str, shape))
                raise OptimizeError(f"--shape {name}={given} does not fit the input, which is declared as {declared}")
        for name, (low, high) in self.ranges.items():
            if not low <= high:
                raise OptimizeError(f"--range {name}={low:g}:{high:g}: expected low:high with low at most high")


@dataclass(frozen=True)
class Guess:
    """One way to fill what the file leaves open: symbolic axes, and integers."""

    sizes: tuple[int, ...]
    """Taken in turn by symbols in the order of the inputs; one size: for all."""
    space: int | None = None
    """For the last two axes of inputs of rank 4 and more, if it is given."""
    integers: tuple[int, int] = (0, 1)
    """Smallest and largest, where no table says more."""


def guesses() -> Iterator[Guess]:
    """From small and all different, so that axes cannot be mistaken for each other, to usual sizes of images."""
    yield Guess(_SMALL)
    yield Guess((2,), space=64)
    yield Guess((1,), space=64)
    yield Guess((8,))
    yield Guess(_SMALL, integers=(1, 2))
    yield Guess((1,))
    yield Guess((1,), space=224)
    yield Guess((16,), integers=(1, 1))
    yield Guess((32,))
    yield Guess((64,), space=256)
    yield Guess((1,), space=32, integers=(0, 0))


def required_inputs(graph: ir.Graph) -> list[ir.Value]:
    """Inputs without a default."""
    return [value for value in graph.inputs if value.name not in graph.initializers]


def make_feeds(
    graph: ir.Graph, choices: FeedChoices, guess: Guess, seed: int
) -> tuple[dict[str, Array], dict[str, int]]:
    """Arrays for the inputs, and the size of each symbol. With an odd seed, float inputs with a default are given
    another value than that, as a caller may.

    Raises OptimizeError for inputs that no array can be made for: sequences, unknown ranks.
    """
    sizes = _symbol_sizes(graph, choices, guess)
    feeds = {}
    for value in required_inputs(graph):
        feeds[str(value.name)] = _feed(value, _shape(value, choices, guess, sizes), choices, guess, seed)
    for value in graph.inputs:
        tensor = None if value.name not in graph.initializers else value.const_value
        if tensor is not None and seed % 2 and tensor.dtype in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
            array = tensor.numpy()
            feeds[str(value.name)] = (array * 1.25 + 0.0625).astype(array.dtype)
    return feeds, {name: size for name, size in sizes.items() if not name.startswith("\0")}


def _symbol_sizes(graph: ir.Graph, choices: FeedChoices, guess: Guess) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for value in required_inputs(graph):  # what the user says counts for all inputs
        for dim, size in zip(value.shape or (), choices.shapes.get(str(value.name), ()), strict=False):
            if isinstance(dim, ir.SymbolicDim) and dim.value is not None:
                sizes[dim.value] = size
    count = 0
    for value in required_inputs(graph):
        rank = len(value.shape or ())
        for axis, dim in enumerate(value.shape or ()):
            if isinstance(dim, int):
                continue
            name = dim.value or f"\0{value.name}/{axis}"  # an axis without a name is one of its own
            if name not in sizes:
                in_space = guess.space is not None and rank >= 4 and axis >= rank - 2
                sizes[name] = guess.space or 0 if in_space else guess.sizes[count % len(guess.sizes)]
                count += 1
    return sizes


def _shape(value: ir.Value, choices: FeedChoices, guess: Guess, sizes: Mapping[str, int]) -> tuple[int, ...]:
    if str(value.name) in choices.shapes:
        return choices.shapes[str(value.name)]
    if value.shape is None:
        raise OptimizeError(f"input {value.name!r} has no known rank: give --shape {value.name}=…")
    return tuple(
        dim if isinstance(dim, int) else sizes[dim.value or f"\0{value.name}/{axis}"]
        for axis, dim in enumerate(value.shape)
    )


def _feed(value: ir.Value, shape: tuple[int, ...], choices: FeedChoices, guess: Guess, seed: int) -> Array:
    name, dtype = str(value.name), value.dtype
    if dtype is None or not isinstance(value.type, ir.TensorType):
        raise OptimizeError(f"input {name!r} is {value.type}: no inputs of that kind can be made up")
    if dtype == ir.DataType.STRING:
        return np.full(shape, "a", object)
    random = np.random.default_rng([seed, zlib.crc32(name.encode())])
    kept = choices.ranges.get(name)
    kind = dtype.numpy()
    if dtype == ir.DataType.BOOL:
        return np.asarray(random.random(shape) < 0.5)
    if kind.kind in "iu":
        low, high = (int(kept[0]), int(kept[1])) if kept is not None else _integer_range(value, guess)
        return np.asarray(random.integers(low, high, shape, endpoint=True)).astype(kind)
    numbers = random.standard_normal(shape) if kept is None else random.uniform(*kept, shape)
    return np.asarray(numbers).astype(kind)


def _integer_range(value: ir.Value, guess: Guess) -> tuple[int, int]:
    """Up to the last row of the smallest constant table that the values index; else what the guess says."""
    rows: list[int] = []
    seen, stack = {value}, [value]
    while stack and len(seen) < _MOST_STEPS:
        for node, index in stack.pop().uses():
            if node.op_type == "Gather" and not node.domain and index == 1:
                table = static_shape(node.inputs[0])
                if table and constant_array(node.inputs[0]) is not None:
                    rows.append(table[node.attributes.get_int("axis", 0)])
            elif node.op_type in _KEEP_ELEMENTS and not node.domain:
                new = [output for output in node.outputs if output not in seen]
                seen.update(new)
                stack += new
    return (0, min(rows) - 1) if rows and min(rows) > 0 else guess.integers
