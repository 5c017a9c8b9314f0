"""Observers of the pipeline: verify each pass by numbers, dump the graph after a pass."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from samonnx.errors import SamonnxError, VerificationError
from samonnx.passes.evaluation import EngineError, run_model
from samonnx.passes.graph_values import static_shape
from samonnx.passes.interface import Array, Exactness, GraphPass
from samonnx.passes.pipeline import PassReport

__all__ = ["DumpAfter", "PassBrokePromiseError", "VerifyEach", "hold_to_promise", "seeded_feeds"]

_EXTERNAL_BYTES = 1024


class PassBrokePromiseError(VerificationError):
    """After a pass, an output of the graph differs by more than the pass declares."""


def seeded_feeds(model: ir.Model, *, seed: int = 0, symbolic: int | None = None) -> dict[str, Array]:
    """Inputs for `model` by dtype: floats standard normal, integers 0 to 3, booleans by coin toss.

    An input's values depend on `seed`, its name and its shape only, so a graph that loses or gains an input gets the
    same values for the others. `symbolic` is the size of every symbolic dimension.

    Raises:
        SamonnxError: for an input of unknown shape, of a symbolic one without a size for it, or of an unusual dtype.
    """
    return {str(value.name): _seeded_feed(value, seed, symbolic) for value in model.graph.inputs}


def _seeded_feed(value: ir.Value, seed: int, symbolic: int | None) -> Array:
    name, shape, dtype = str(value.name), static_shape(value), value.dtype
    if shape is None and value.shape is not None and symbolic is not None:
        shape = tuple(dim if isinstance(dim, int) else symbolic for dim in value.shape)
    if shape is None or dtype is None:
        raise SamonnxError(f"no seeded values for input {name!r} of shape {value.shape}: give VerifyEach its own feeds")
    generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
    kind = dtype.numpy().kind
    if kind == "f":
        return np.asarray(generator.standard_normal(shape)).astype(dtype.numpy())
    if kind in "iu":
        return np.asarray(generator.integers(0, 4, shape)).astype(dtype.numpy())
    if kind == "b":
        return np.asarray(generator.integers(0, 2, shape)).astype(np.bool_)
    raise SamonnxError(f"no seeded values for input {name!r} of dtype {dtype.name}: give VerifyEach its own feeds")


def _as_it_is(model: ir.Model) -> ir.Model:
    return model


@dataclass(frozen=True)
class VerifyEach:
    """Runs the graph before and after each pass on the same inputs and holds the pass to its declared tolerance.

    Both graphs run in ONNX Runtime on the CPU, with graph optimisation, prepacking and (by default) threads off, so
    that the same node computes the same bits in both. The error of a bit-exact pass must be 0. The sign of zero is not
    looked at: ONNX Runtime's Where loses it, so that a graph without an idle Where differs.

    Attributes:
        seed: of the default inputs (`seeded_feeds`).
        feeds: overrides them: from the model after the pass to its inputs.
        runnable: what is run in a model's place, where ONNX Runtime refuses what the standard allows
            (`samonnx.passes.lower.runnable`).
        threads: of ONNX Runtime; more than one may change the last bits of large sums.
    """

    seed: int = 0
    feeds: Callable[[ir.Model], Mapping[str, Array]] | None = None
    threads: int = 1
    runnable: Callable[[ir.Model], ir.Model] = _as_it_is

    @property
    def wants_snapshot(self) -> bool:
        """Always."""
        return True

    def after_pass(self, pass_: GraphPass, before: ir.Model | None, model: ir.Model, report: PassReport) -> None:
        """Raises `PassBrokePromiseError` naming pass, output, largest error, position and promise."""
        assert before is not None
        feeds = self.feeds(model) if self.feeds is not None else seeded_feeds(model, seed=self.seed)
        names = [value.name for value in before.graph.outputs], [value.name for value in model.graph.outputs]
        if names[0] != names[1]:
            raise PassBrokePromiseError(
                f"pass {pass_.name!r} changed the graph's outputs from {names[0]} to {names[1]}"
            )
        try:
            expected = run_model(self.runnable(before), pass_.feeds_before(feeds, before), threads=self.threads)
        except EngineError as error:
            raise SamonnxError(
                f"cannot verify pass {pass_.name!r}: the graph before it does not run: {error}"
            ) from error
        try:
            found = run_model(self.runnable(model), feeds, threads=self.threads)
        except EngineError as error:
            raise PassBrokePromiseError(
                f"after pass {pass_.name!r} the graph does not run any more: {error}"
            ) from error
        for name, old in expected.items():
            hold_to_promise(pass_, name, old, found[name], pass_.tolerance)


def hold_to_promise(pass_: GraphPass, name: str, old: Array, new: Array, tolerance: float) -> None:
    """Raises `PassBrokePromiseError` where output `name` went from `old` to `new` by more than `tolerance` of its
    largest magnitude, or to another dtype or shape; names the pass, the largest error, its position and the promise."""
    promise = f"promise: {pass_.exactness.value}"
    if pass_.exactness is not Exactness.BIT_EXACT:
        promise += f", within {tolerance:g} of the output's largest magnitude"
    where = f"pass {pass_.name!r} broke its promise on output {name!r}"
    if old.dtype != new.dtype or old.shape != new.shape:
        raise PassBrokePromiseError(
            f"{where}: {new.dtype}{list(new.shape)} instead of {old.dtype}{list(old.shape)} ({promise})"
        )
    if old.size == 0:
        return
    error = _relative_error(old, new)
    worst = np.unravel_index(int(error.argmax()), error.shape)
    if error[worst] > tolerance:
        raise PassBrokePromiseError(
            f"{where}: largest error {error[worst]:.3g} of the output's largest magnitude at "
            f"{[int(index) for index in worst]}: {old[worst]!s} became {new[worst]!s} ({promise})"
        )


def _relative_error(old: Array, new: Array) -> Array:
    """|new − old| over the largest finite |old|; infinite where just one of the two is finite; NaN equals NaN."""
    wide, other = old.astype(np.float64), new.astype(np.float64)
    finite = np.isfinite(wide) & np.isfinite(other)
    same = (old == new) | (np.isnan(wide) & np.isnan(other))
    largest = np.abs(wide[np.isfinite(wide)]).max(initial=0.0)
    with np.errstate(invalid="ignore"):
        error = np.where(finite, np.abs(other - wide) / (largest or 1.0), np.inf)
    # Two 64-bit integers may differ and still be the same float64.
    return np.where(same, 0.0, np.maximum(error, np.finfo(np.float64).tiny))


@dataclass(frozen=True)
class DumpAfter:
    """Writes the graph after every run of one pass, for a look into the pipeline; the last run's file stays.

    Attributes:
        pass_name: of the pass, as in the registry.
        path: of the `.onnx` file; initialisers above 1 KiB go to a file beside it with `.data` appended.
    """

    pass_name: str
    path: Path

    @property
    def wants_snapshot(self) -> bool:
        """Never."""
        return False

    def after_pass(self, pass_: GraphPass, before: ir.Model | None, model: ir.Model, report: PassReport) -> None:
        """Raises `SamonnxError` when the file cannot be written."""
        if pass_.name != self.pass_name:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            ir.save(
                model.clone(), self.path, external_data=f"{self.path.name}.data", size_threshold_bytes=_EXTERNAL_BYTES
            )
        except OSError as error:
            raise SamonnxError(
                f"cannot dump the graph after pass {self.pass_name!r} to {self.path}: {error}"
            ) from error
