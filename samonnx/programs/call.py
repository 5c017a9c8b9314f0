"""The programs under `calls:` of a recipe: each is one component, a call of a foreign model.

input ports ───────► ┌──────┐ ─► output ports
bank.NAME ─────────► │ call │ ─► next_bank.NAME
                     └──────┘
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from samonnx.eager_lock import EAGER_LOCK
from samonnx.foreign.branch_probe import Probed, Stop, probe, require_no_stops
from samonnx.foreign.call_module import CallError, CallModule
from samonnx.foreign.example_tensors import drawn, empty_tensor
from samonnx.programs.program import BankTensor, Component, Port, Program, Wire
from samonnx.recipe_calls import BankSpec, CallSpec, TensorSpec

__all__ = ["call_feeds", "call_programs"]

_DTYPES = {torch.float32: "float32", torch.int32: "int32", torch.int64: "int64", torch.bool: "bool"}


def call_feeds(call: CallSpec, draw: int = 0, empty_bank: bool = False) -> dict[str, Tensor]:
    """Example values of every input, by port, in the order of `CallModule`: draw number `draw`."""
    feeds = {name: drawn(name, spec, draw) for name, spec in call.inputs.items()}
    for name, bank in call.bank.items():
        feeds[f"bank.{name}"] = empty_tensor(bank) if empty_bank else drawn(f"bank.{name}", bank, draw)
    return feeds


def call_programs(model: nn.Module, traced: nn.Module, calls: Mapping[str, CallSpec]) -> tuple[Program, ...]:
    """A program for each call, in the recipe's order. `traced` is `model` with submodules replaced.

    Each call is run once, see `samonnx.foreign.branch_probe`. Raises TraceError that tells of every value of every call
    that comes from an input and decides something; CallError for calls that do not fit the model.
    """
    probed: dict[str, Probed] = {}
    stops: list[Stop] = []
    _check_banks(calls)
    for name, call in calls.items():
        with EAGER_LOCK:
            probed[name] = probe(CallModule(name, traced, call), call_feeds(call))
        stops += probed[name].stops
    require_no_stops(stops, calls)
    return tuple(_program(name, call, model, traced, probed[name]) for name, call in calls.items())


def _program(name: str, call: CallSpec, model: nn.Module, traced: nn.Module, probed: Probed) -> Program:
    feeds = call_feeds(call)
    bank = tuple(BankTensor(key, spec.empty) for key, spec in call.bank.items())
    given = {**call.inputs, **{f"bank.{key}": spec for key, spec in call.bank.items()}}
    inputs = tuple(Port(port, spec.dtype, spec.shape, spec.meaning, _range(spec)) for port, spec in given.items())
    names = (*call.outputs, *(tensor.output for tensor in bank))
    outputs = tuple(
        Port(port, _DTYPES[tensor.dtype], tuple(tensor.shape), "")
        for port, tensor in zip(names, probed.outputs, strict=True)
    )
    _check_next_bank(name, call, {port.name: port for port in outputs})
    component = Component(
        name=name,
        module=CallModule(name, traced, call, probed.values.replayed).eval(),
        inputs=feeds,
        outputs=names,
        integers={
            port: (int(spec.bounds[0]), int(spec.bounds[1]) + 1)
            for port, spec in given.items()
            if spec.dtype.startswith("int")
        },
        seen_in=frozenset({name}),
        original=CallModule(name, model, call).eval(),
    )
    wires = (
        *(Wire(port, f"{name}.{port}") for port in feeds),
        *(Wire(f"{name}.{port}", port) for port in names),
    )
    return Program(name, inputs, outputs, (component,), wires, bank)


def _range(spec: TensorSpec) -> str:
    """What the recipe says of the values, if it says anything."""
    if spec.low is None and spec.high is None:
        return ""
    low, high = spec.bounds
    return f"{low:g} to {high:g}"


def _check_banks(calls: Mapping[str, CallSpec]) -> None:
    """A bank tensor is the same in all programs that have it: they share one bank."""
    known: dict[str, tuple[str, BankSpec]] = {}
    for name, call in calls.items():
        for key, spec in call.bank.items():
            other, before = known.setdefault(key, (name, spec))
            if (before.shape, before.dtype, before.empty) != (spec.shape, spec.dtype, spec.empty):
                raise CallError(
                    f"calls.{name}.bank.{key} is {_spelled(spec)}, but calls.{other} has it as {_spelled(before)}; "
                    "expected the same, or another name"
                )


def _spelled(spec: BankSpec) -> str:
    return f"{spec.dtype} {list(spec.shape)}, empty {spec.empty}"


def _check_next_bank(name: str, call: CallSpec, outputs: Mapping[str, Port]) -> None:
    for key, spec in call.bank.items():
        found = outputs[f"next_bank.{key}"]
        if (found.dtype, found.shape) != (spec.dtype, spec.shape):
            raise CallError(
                f"calls.{name}.bank.{key} is {spec.dtype} {list(spec.shape)}, but its next value, {spec.output!r} of "
                f"what {call.method} returns, is {found.dtype} {list(found.shape)}; expected the same, since it goes "
                "back into the next call"
            )
