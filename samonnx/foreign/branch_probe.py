"""Branch probe: one eager run of a call that finds everything a trace would have to guess.

    example inputs ─► taint ─┬─ a Python value read from a tensor that comes from an input   ─► TraceError, all at once
                             └─ one read from constants (sizes, `torch.tensor(shape)`)       ─► recorded for the trace

Each value that comes from an input is told with file, line and expression, the inputs it comes from, and what would
settle it: pins, fixed arguments, a replacement.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from samonnx.errors import SamonnxError
from samonnx.foreign.call_module import CallError, CallModule
from samonnx.foreign.python_values import PythonValues
from samonnx.foreign.source_place import SourcePlace, frames, place_of
from samonnx.foreign.taint import Taint
from samonnx.foreign.value_reads import MAKERS
from samonnx.recipe_calls import CallSpec
from samonnx.trace import TraceError

READS = frozenset({"_local_scalar_dense", "allclose", "equal", "is_nonzero", "tolist", "numpy", "__array__", *MAKERS})
"""What gives a Python value; other operators give a tensor of a shape that is not known."""

__all__ = ["Probed", "Stop", "probe", "require_no_stops"]


@dataclass(frozen=True)
class Stop:
    """A Python value, or a shape, that comes from inputs of the program `call`."""

    call: str
    place: SourcePlace
    """Where it is met first."""
    ports: tuple[str, ...]
    read: str
    """The operator or method that reads it."""
    owners: tuple[str, ...] = ()
    """Paths of all modules that meet it there."""


@dataclass(frozen=True)
class Probed:
    """A call's outputs for its example inputs; `values`: what it reads from constants; `stops`: from inputs."""

    outputs: tuple[Tensor, ...]
    values: PythonValues
    stops: tuple[Stop, ...]


def probe(module: CallModule, inputs: Mapping[str, Tensor]) -> Probed:
    """Run `module` on `inputs` (by port, in the order of its forward). Raises CallError when it fails on them, with the
    line of the model's code, whether or not there are stops before."""
    values = PythonValues()
    stops: dict[tuple[str, int, str], Stop] = {}

    def stopped(ports: frozenset[str], read: str) -> None:
        place = place_of(module.model)
        key = (place.file, place.line, place.expression)
        known = stops.get(key, Stop(module.name, place, (), read))
        owners = known.owners if place.owner is None else tuple(dict.fromkeys((*known.owners, place.owner)))
        ordered = tuple(port for port in inputs if port in ports or port in known.ports)
        stops[key] = replace(known, ports=ordered, owners=owners)

    copies = {port: tensor.clone() for port, tensor in inputs.items()}
    taint = Taint(copies, stopped)
    outputs: tuple[Tensor, ...] = ()
    try:
        with torch.no_grad(), taint, values.recording(taint, stopped):
            outputs = module(*copies.values())
    except SamonnxError:
        raise
    except Exception as error:
        if not stops:
            raise CallError(_failed(module.name, error)) from error
    return Probed(outputs, values, tuple(stops.values()))


def _failed(call: str, error: Exception) -> str:
    walked = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    inner = next(frames(walked[-1]), walked[-1])
    line = next((number for frame, number in reversed([*traceback.walk_tb(error.__traceback__)]) if frame is inner), 0)
    return (
        f"calls.{call}: the model fails on the example inputs, before anything is traced\n"
        f"  where: {inner.f_code.co_filename}:{line} in {inner.f_code.co_qualname}\n"
        f"  why:   {type(error).__name__}: {str(error).strip()}\n"
        "  what to do: give the call the inputs (shape, dtype, low, high) and the fixed arguments that the model's own "
        "code expects"
    )


def require_no_stops(stops: Sequence[Stop], calls: Mapping[str, CallSpec]) -> None:
    """Raises TraceError that tells all of them."""
    if not stops:
        return
    count = "a value that comes" if len(stops) == 1 else f"{len(stops)} values that come"
    blocks = [_told(number, stop, calls[stop.call]) for number, stop in enumerate(stops, 1)]
    raise TraceError(f"{count} from inputs would have to be known while the model is traced:\n" + "\n".join(blocks))


def _told(number: int, stop: Stop, call: CallSpec) -> str:
    place = stop.place
    lines = [f"  {number}. {place.file}:{place.line} in {place.function}"]
    if place.called_from:
        lines.append(f"     called from {place.called_from}")
    lines.append(f"       {place.source}")
    what = "is read as a Python value" if stop.read in READS else f"has a shape that depends on values ({stop.read})"
    lines.append(f"     `{place.expression}` {what}; it comes from: {', '.join(stop.ports)}")
    if place.condition and place.condition != place.expression:
        lines.append(f"     it decides: {place.condition}")
    lines.append(f"     what would settle it, in `calls.{stop.call}` or beside it:")
    lines += [f"       {line}" for line in _remedies(stop, call)]
    return "\n".join(lines)


def _remedies(stop: Stop, call: CallSpec) -> Iterable[str]:
    place = stop.place
    prefix = f"{place.owner}." if place.owner else ""
    more = f"; likewise in {len(stop.owners) - 1} more" if len(stop.owners) > 1 else ""
    for name, value in place.attributes:
        said = str(value).lower() if isinstance(value, bool) else value
        yield f"pins: {{{prefix}{name}: …}}   (now {said}{more})"
    for port in stop.ports:
        spec = call.inputs.get(port)
        if spec is not None:
            argument = spec.argument or port
            yield f"fixed: {{{argument}: …}}   (a plain value or null, in place of the input `{port}`)"
    if place.owner is not None:
        if place.owner:
            yield f"replace: {{{place.owner}: 'package.module:callable'}}   (an equivalent module without it{more})"
        else:
            yield "model.factory: a callable of yours that wraps the model and does without this line"
