"""`assert_exact`: the property tests that every pass of ours goes through, for everybody's passes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir

from samonnx.errors import SamonnxError
from samonnx.passes.evaluation import run_model
from samonnx.passes.float64 import in_float64
from samonnx.passes.interface import Array, Exactness, GraphPass
from samonnx.passes.observers import PassBrokePromiseError, hold_to_promise
from samonnx.passes.reference_evaluation import random_feeds, reference
from samonnx.passes.shape_inference import ShapeInferenceError, infer_shapes

__all__ = ["FLOAT64_TOLERANCE", "assert_exact"]

_Evaluator = Callable[[ir.Model, Mapping[str, Array]], dict[str, Array]]

FLOAT64_TOLERANCE = 1e-12
"""An identity of real numbers keeps this much in float64, relative to the largest magnitude of the output."""


def assert_exact(
    pass_: GraphPass,
    model: ir.Model,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    feeds: Mapping[str, Array] | None = None,
    float64: bool = True,
) -> ir.Model:
    """Runs `pass_` on copies of `model` and holds it to what `GraphPass` asks of every pass:

    - `modified` says whether nodes, initialisers, ports or opsets changed, and a second run changes nothing;
    - inputs and outputs keep their names, order and dtypes (inputs may differ if the pass has a `feeds_before`);
    - tensors, which all copies of a model share, are not written into;
    - ONNX's checker accepts the result;
    - the outputs stay within the pass's tolerance in float32 (equal bits, but for the sign of zero, for a bit-exact
      pass), and within 1e-12 in float64 for one that is exact in real arithmetic, in ONNX's reference evaluator.

    Args:
        pass_: with its options.
        model: a small graph, in float32 where it is to be widened. Shapes are inferred before the pass sees it. With
            operators of another domain than ONNX's own before or after, ONNX Runtime takes the evaluator's place, and
            float64 is left out.
        seeds: of the random inputs (standard normal, 0 to 3, coin tosses), one comparison each.
        feeds: instead of them, inputs of the graph after the pass; needed where a shape is symbolic.
        float64: false leaves that half out, for operators that have no float64.

    Returns:
        The copy after the pass, to look at.

    Raises:
        AssertionError: names the pass, what it promised, and what was found.
        SamonnxError: what the pass itself raises, and an input without `feeds` whose shape is not known.
    """
    before = _prepared(model)
    after = _rewritten(pass_, before)
    _check_numbers(pass_, before, after, seeds, feeds, "float32", pass_.tolerance)
    if float64 and not _has_foreign_operators(before, after):
        tolerance = FLOAT64_TOLERANCE if pass_.exactness is Exactness.REAL_EXACT else pass_.tolerance
        try:
            wide = _prepared(in_float64(model))
        except ShapeInferenceError as error:
            raise AssertionError(f"the graph has no form in float64, give float64=False: {error}") from error
        wide_feeds = None if feeds is None else {name: _wide(array) for name, array in feeds.items()}
        _check_numbers(pass_, wide, _rewritten(pass_, wide), seeds, wide_feeds, "float64", tolerance)
    return after


def _prepared(model: ir.Model) -> ir.Model:
    copy = model.clone()
    infer_shapes(copy)
    return copy


def _wide(array: Array) -> Array:
    return array.astype(np.float64) if array.dtype == np.float32 else array


def _rewritten(pass_: GraphPass, before: ir.Model) -> ir.Model:
    """A copy after the pass, with everything checked that needs no numbers."""
    after = before.clone()
    tensors = _digests(before)
    text, ports = _text(after), _ports(before)  # spelled now: clones share more than tensors
    modified = pass_(after).modified
    _check_ports(pass_, ports, _ports(after))
    if written := [name for name, digest in _digests(before).items() if digest != tensors[name]]:
        raise AssertionError(
            f"pass {pass_.name!r} wrote into the tensor of {', '.join(map(repr, written))}, which other graphs share; "
            "it must give the initialiser a new one"
        )
    changed = _text(after) != text
    if changed and not modified:
        raise AssertionError(f"pass {pass_.name!r} changed the graph, but says modified=False")
    if modified and not changed:
        raise AssertionError(f"pass {pass_.name!r} says modified=True, but changed nothing")
    _check_valid(pass_, before, after)
    _check_second_run(pass_, after)
    return after


def _ports(model: ir.Model) -> dict[str, list[str]]:
    values = {"inputs": model.graph.inputs, "outputs": model.graph.outputs}
    return {what: [f"{v.name} {v.dtype.name if v.dtype else '?'}" for v in held] for what, held in values.items()}


def _check_ports(pass_: GraphPass, before: Mapping[str, list[str]], after: Mapping[str, list[str]]) -> None:
    may_change_inputs = type(pass_).feeds_before is not GraphPass.feeds_before
    for what, old in before.items():
        if old != after[what] and not (what == "inputs" and may_change_inputs):
            raise AssertionError(f"pass {pass_.name!r} changed the {what} from {old} to {after[what]}")


def _check_valid(pass_: GraphPass, before: ir.Model, after: ir.Model) -> None:
    for model, words in (
        (before, "the graph is not valid before it runs"),
        (after, "it left a graph that is not valid"),
    ):
        try:
            onnx.checker.check_model(ir.to_proto(model))
        except onnx.checker.ValidationError as error:
            raise AssertionError(f"pass {pass_.name!r}: {words}: {error}") from error


def _check_second_run(pass_: GraphPass, after: ir.Model) -> None:
    again = after.clone()
    try:
        modified = pass_(again).modified
    except SamonnxError:
        # What a pass has done to the inputs it need not be able to do twice.
        if type(pass_).feeds_before is not GraphPass.feeds_before:
            return
        raise
    if modified or _text(again) != _text(after):
        raise AssertionError(f"pass {pass_.name!r} is not idempotent: a second run changes the graph again")


def _check_numbers(
    pass_: GraphPass,
    before: ir.Model,
    after: ir.Model,
    seeds: Sequence[int],
    feeds: Mapping[str, Array] | None,
    dtype: str,
    tolerance: float,
) -> None:
    evaluate: _Evaluator = run_model if _has_foreign_operators(before, after) else reference
    for seed in seeds if feeds is None else seeds[:1]:
        given = random_feeds(after, seed) if feeds is None else feeds
        where = f"in {dtype}" if feeds is not None else f"in {dtype}, seed {seed}"
        wanted = _evaluated(evaluate, before, pass_.feeds_before(given, before), f"before pass {pass_.name!r}, {where}")
        found = _evaluated(evaluate, after, given, f"after pass {pass_.name!r}, {where}")
        for name, old in wanted.items():
            try:
                hold_to_promise(pass_, name, old, found[name], tolerance)
            except PassBrokePromiseError as error:
                raise AssertionError(f"{error}, {where}") from None


def _evaluated(evaluate: _Evaluator, model: ir.Model, feeds: Mapping[str, Array], when: str) -> dict[str, Array]:
    try:
        return evaluate(model, feeds)
    except Exception as error:  # the evaluator raises whatever NumPy does
        raise AssertionError(f"the graph {when}, cannot be evaluated: {type(error).__name__}: {error}") from error


def _has_foreign_operators(*models: ir.Model) -> bool:
    return any(node.domain not in ("", "ai.onnx") for model in models for node in model.graph.all_nodes())


def _digests(model: ir.Model) -> dict[str, bytes]:
    values = model.graph.initializers.items()
    return {
        name: hashlib.sha256(value.const_value.tobytes()).digest()
        for name, value in values
        if value.const_value is not None
    }


def _text(model: ir.Model) -> bytes:
    """Nodes, initialisers, ports and opsets; not what is only said of them (inferred shapes, metadata)."""
    proto = ir.to_proto(model)
    for message in (proto, proto.graph, *proto.graph.node):
        del message.metadata_props[:]
    for node in proto.graph.node:
        node.doc_string = ""
    del proto.graph.value_info[:]
    for output in proto.graph.output:
        output.type.Clear()
    return bytes(proto.SerializeToString(deterministic=True))
