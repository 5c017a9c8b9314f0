"""Verify: the structure of a graph, and its numbers against PyTorch, one step of the road at a time.

    component   traced graph against its module, on seeded inputs
    program     the linked graph against the same components in eager PyTorch; a tracker over a synthetic clip, each
                step from the reference's bank, against the eager reference with its dictionaries
    structure   ONNX checker (full), strict shape inference, domains, dtypes, no unused initialiser

Errors are the largest absolute difference over the reference tensor's largest magnitude.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import torch
from torch import Tensor, nn

from samonnx.callable_module import make_callable
from samonnx.eager_lock import EAGER_LOCK
from samonnx.errors import VerificationError
from samonnx.graph_file import Overlaid, external_tensors, serialized
from samonnx.graph_session import Array, GraphSession
from samonnx.passes.lower import runnable
from samonnx.passes.observers import seeded_feeds
from samonnx.programs.program import Component
from samonnx.trace import TracedComponent
from samonnx.weights_file import WEIGHTS_NAME

__all__ = [
    "DOMAINS",
    "Comparison",
    "check_structure",
    "compare",
    "component_check",
    "require",
    "verify",
    "verify_component",
]

DOMAINS: Mapping[str, frozenset[str]] = {
    "onnx": frozenset({""}),
    "ort-cpu": frozenset({"", "com.microsoft"}),
    "openvino": frozenset({""}),
}
"""Target → operator domains that its graphs may use."""

FORBIDDEN_DTYPES = frozenset({ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16})
"""A float32 graph in which one of these appears has changed its precision silently."""


@dataclass(frozen=True)
class Comparison:
    """One figure: the error of `what` (see the module docstring) and the tolerance it was held to."""

    what: str
    largest_error: float
    tolerance: float

    @property
    def ok(self) -> bool:
        return self.largest_error <= self.tolerance

    def of(self, graph: str) -> Comparison:
        """The same figure, said to be of that graph."""
        return replace(self, what=f"{graph}: {self.what}")


def compare(what: str, found: Array, expected: Array, tolerance: float, unit: float = 0.0) -> Comparison:
    """Relative to the largest magnitude of `expected` (to `unit` if that is larger: a logit near zero is not more
    exact); integers and booleans must be equal; a NaN is an infinite error."""
    found, expected = np.asarray(found), np.asarray(expected)
    if found.shape != expected.shape or found.dtype != expected.dtype:
        raise VerificationError(
            f"{what}: found {found.dtype} {list(found.shape)}, expected {expected.dtype} {list(expected.shape)}"
        )
    if expected.dtype.kind != "f":
        return Comparison(what, float(np.count_nonzero(found != expected)), 0.0)
    if not (np.isfinite(found).all() and np.isfinite(expected).all()):
        return Comparison(what, float("inf"), tolerance)
    scale = max(float(np.abs(expected).max(initial=0.0)), unit)
    error = float(np.abs(found.astype(np.float64) - expected).max(initial=0.0))
    return Comparison(what, error / scale if scale > 0 else error, tolerance)


def require(comparisons: Iterable[Comparison]) -> None:
    """Raises VerificationError with a line for each comparison that failed."""
    failed = [c for c in comparisons if not c.ok]
    if failed:
        lines = "\n".join(f"  - {c.what}: error {c.largest_error:.2e}, allowed {c.tolerance:.1e}" for c in failed)
        raise VerificationError(f"the graph does not give the module's numbers:\n{lines}")


def check_structure(model: ir.Model, name: str, target: str) -> None:
    """Full ONNX checker with strict shape inference, allowed domains, float32 only, no unused initialiser.

    Raises VerificationError that names the graph and what is wrong with it.
    """
    allowed = DOMAINS[target]
    problems = []
    for node in model.graph.all_nodes():
        if node.domain not in allowed:
            problems.append(f"node {node.name!r} ({node.op_type}) is of domain {node.domain!r}")
        problems += [
            f"value {value.name!r} of node {node.name!r} ({node.op_type}) is {value.dtype.name}"
            for value in node.outputs
            if value.dtype in FORBIDDEN_DTYPES
        ]
    problems += [f"input {v.name!r} is {v.dtype.name}" for v in model.graph.inputs if v.dtype in FORBIDDEN_DTYPES]
    for initializer in model.graph.initializers.values():
        if not initializer.uses() and not initializer.is_graph_output():
            problems.append(f"initialiser {initializer.name!r} is not used")
        if initializer.dtype in FORBIDDEN_DTYPES:
            problems.append(f"initialiser {initializer.name!r} is {initializer.dtype.name}")
    if problems:
        shown = "\n".join(f"  - {problem}" for problem in problems[:10])
        raise VerificationError(f"{name} for target {target!r} is not legal ({len(problems)} problems):\n{shown}")
    clone = model.clone()
    size = max((tensor.nbytes for _, tensor in external_tensors(clone)), default=0)
    with tempfile.TemporaryDirectory(prefix="samonnx-") as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(serialized(clone, Overlaid()))
        with (Path(folder) / WEIGHTS_NAME).open("wb") as weights:
            weights.truncate(size)  # the checker wants to see a file; it does not read it
        try:
            onnx.checker.check_model(str(path))
            # The rest of the full check, with shape data on top. Shapes never depend on the weights, so they need not
            # be read; on tables of integers they might.
            bare = onnx.load(str(path), load_external_data=False)
            _embed_integers(bare, model)
            onnx.shape_inference.infer_shapes(bare, check_type=True, strict_mode=True, data_prop=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise VerificationError(f"{name} for target {target!r} fails the ONNX checker: {error}") from error


def _embed_integers(bare: onnx.ModelProto, model: ir.Model) -> None:
    """External initialisers of whole numbers become part of `bare`: shape inference with data reads them."""
    for tensor in bare.graph.initializer:
        external = tensor.data_location == onnx.TensorProto.EXTERNAL
        if external and tensor.data_type in (onnx.TensorProto.INT64, onnx.TensorProto.INT32):
            value = model.graph.initializers[tensor.name].const_value
            assert value is not None
            del tensor.external_data[:]
            tensor.data_location = onnx.TensorProto.DEFAULT
            tensor.raw_data = value.tobytes()


def seeded_inputs(component: Component, seed: int = 0) -> dict[str, Tensor]:
    """Inputs of a component for a comparison: normal floats (maps smooth over 8 cells, as images and masks are), small
    integers, random flags."""
    generator = torch.Generator().manual_seed(seed)
    inputs = {}
    for name, example in component.inputs.items():
        if example.dtype == torch.bool:
            inputs[name] = torch.rand(example.shape, generator=generator) < 0.5
        elif example.is_floating_point():
            inputs[name] = _smooth_normal(example.shape, generator)
        else:
            low, high = component.integers.get(name, (-1, 4))
            inputs[name] = torch.randint(low, high, example.shape, generator=generator, dtype=example.dtype)
    return inputs


def _smooth_normal(shape: torch.Size, generator: torch.Generator) -> Tensor:
    if len(shape) != 4 or min(shape[2:]) < 64:
        return torch.randn(shape, generator=generator)
    coarse = torch.randn((*shape[:2], shape[2] // 8, shape[3] // 8), generator=generator)
    return torch.nn.functional.interpolate(coarse, size=tuple(shape[2:]), mode="bilinear", align_corners=False)


def verify_component(component: Component, traced: TracedComponent, tolerance: float) -> tuple[Comparison, ...]:
    """The traced graph against its module on `seeded_inputs`; symbolic axes take the examples' sizes."""
    return component_check(component, traced, tolerance)()


def component_check(
    component: Component, traced: TracedComponent, tolerance: float
) -> Callable[[], tuple[Comparison, ...]]:
    """`verify_component` in two parts: the module runs now, the graph when the returned function is called.

    The second part touches no torch, so it may run beside the tracing of other components.
    """
    inputs = seeded_inputs(component)
    with torch.inference_mode():
        returned = component.module(*inputs.values())
    expected = [tensor.numpy() for tensor in (returned if isinstance(returned, tuple) else (returned,))]
    feeds = {name: tensor.numpy() for name, tensor in inputs.items()}

    def check() -> tuple[Comparison, ...]:
        found = GraphSession(runnable(traced.model)).run(feeds)
        return tuple(
            compare(f"{component.name}.{name}", found[name], array, tolerance)
            for name, array in zip(component.outputs, expected, strict=True)
        )

    return check


def verify(
    subject: Component | nn.Module,
    graph: TracedComponent | ir.Model | str | Path,
    inputs: Mapping[str, Tensor] | None = None,
    tolerance: float = 1e-4,
) -> tuple[Comparison, ...]:
    """Holds a graph to the PyTorch module that it was made from: both run on the same inputs, the graph in ONNX
    Runtime.

    Args:
        subject: a component, or a module whose forward takes `inputs` by position, in their order, and returns a tensor
            or a tuple of tensors, one for each output of the graph.
        graph: traced, linked, optimised, or the path of an `.onnx` file. Its inputs go by the names of `inputs`; those
            that it does not have (it may have lost them by folding) are given to the module alone.
        inputs: name → tensor; left out: seeded (normal floats, small integers, random flags), in the shapes of the
            component's examples, or of the graph's inputs, which must be static then.
        tolerance: largest difference of an output, relative to its largest magnitude; integers and booleans are equal.

    Returns:
        One figure an output, in the graph's order.

    Raises:
        VerificationError: an output that is off by more, with its figure; an input that the graph wants and nothing
            gives; another number of outputs, or another dtype or shape.
    """
    model = graph if isinstance(graph, ir.Model) else graph.model if isinstance(graph, TracedComponent) else None
    model = ir.load(str(graph)) if model is None else model
    if inputs is None and isinstance(subject, Component):
        inputs = seeded_inputs(subject)
    elif inputs is None:
        inputs = {name: torch.from_numpy(array) for name, array in seeded_feeds(model).items()}
    wanted, names = ([str(value.name) for value in values] for values in (model.graph.inputs, model.graph.outputs))
    if missing := [name for name in wanted if name not in inputs]:
        raise VerificationError(f"the graph takes {', '.join(missing)}, which the inputs do not have: {list(inputs)}")
    module = subject.eager if isinstance(subject, Component) else subject
    with EAGER_LOCK, torch.inference_mode():
        returned = module(*inputs.values())
    results = returned if isinstance(returned, tuple | list) else (returned,)
    if len(results) != len(names):
        raise VerificationError(f"the module returns {len(results)} tensors, the graph {len(names)}: {names}")
    found = GraphSession(runnable(model)).run({name: inputs[name].numpy() for name in wanted})
    figures = tuple(
        compare(name, found[name], tensor.numpy(), tolerance) for name, tensor in zip(names, results, strict=True)
    )
    require(figures)
    return figures


make_callable(__name__, "verify")
