"""Trace: one module and its example inputs → one ONNX graph, named by its ports and by the checkpoint's parameter
names."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir
import torch
from onnx_ir.passes import common
from onnxscript.optimizer import fold_constants
from torch import nn

from samonnx.callable_module import make_callable
from samonnx.eager_lock import EAGER_LOCK
from samonnx.errors import SamonnxError
from samonnx.programs.program import Component
from samonnx.translations import TRANSLATIONS
from samonnx.unused_parameters import set_aside

__all__ = ["OPSET", "TraceError", "TracedComponent", "parameter_names", "quiet_exporter", "trace"]

OPSET = 23


class TraceError(SamonnxError):
    """A module could not be traced; the message names the component, the source line and what to do."""


@dataclass(frozen=True)
class TracedComponent:
    """`model`: inputs and outputs carry the component's port names; initialisers the names given to `trace`."""

    name: str
    model: ir.Model


def parameter_names(root: nn.Module) -> Mapping[int, str]:
    """id of each parameter and buffer of `root` → its dotted name, as in a checkpoint."""
    named = [*root.named_parameters(remove_duplicate=False), *root.named_buffers(remove_duplicate=False)]
    return {id(tensor): name for name, tensor in named}


@contextlib.contextmanager
def quiet_exporter() -> Iterator[None]:
    """The exporter prints progress and warns of packages that are not installed; its exceptions still come through."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _dynamic_shapes(component: Component) -> tuple[dict[int, torch.export.Dim] | None, ...] | None:
    """One entry an input, in order: names of ports need not be those of the forward arguments."""
    if not component.symbolic:
        return None
    symbols = sorted({symbol for axes in component.symbolic.values() for symbol in axes.values()})
    dims = {symbol: torch.export.Dim(symbol, min=1, max=4096) for symbol in symbols}
    return tuple(
        {axis: dims[symbol] for axis, symbol in component.symbolic[name].items()}
        if name in component.symbolic
        else None
        for name in component.inputs
    )


def trace(component: Component, names: Mapping[int, str] | None = None) -> TracedComponent:
    """Trace `component.module` (eval mode, no gradients) with torch.export and translate it to ONNX, opset 23.

    Args:
        component: shapes and dtypes of the graph's inputs are those of its examples; the dimensions that it calls
            symbolic may be 1 to 4096.
        names: ids of parameters → the names that their initialisers get (see `parameter_names`); without it they keep
            the names that they have inside the component.

    Raises:
        TraceError: control flow depends on a value, or an operator has no translation; names the line and what to do.
    """
    if both := sorted(set(component.inputs) & set(component.outputs)):
        raise TraceError(
            f"component {component.name!r}: {', '.join(both)} is the name of an input and of an output; "
            "give the output a name of its own"
        )
    # torch.export takes one tensor passed twice for one input
    inputs = tuple(tensor.clone() for tensor in component.inputs.values())
    try:
        with quiet_exporter(), torch.no_grad():
            shapes = _dynamic_shapes(component)
            with EAGER_LOCK, set_aside(component.module, inputs):
                program = torch.export.export(component.module, inputs, dynamic_shapes=shapes, strict=False)
            exported = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=list(component.inputs),
                output_names=list(component.outputs),
                dynamic_shapes=shapes,
                custom_translation_table=dict(TRANSLATIONS),
                verbose=False,
                # The exporter's own rewriting takes a third of its time and drops small constants: see `_tidy`.
                optimize=False,
            )
            assert exported is not None
            model = _tidy(exported.model)
    except Exception as error:
        raise TraceError(_explain(component, error)) from error
    for ident, own in parameter_names(component.module).items():
        if names is not None and ident in names and own in model.graph.initializers:
            _rename_initializer(model.graph, own, names[ident])
    return TracedComponent(component.name, model)


def _tidy(model: ir.Model) -> ir.Model:
    """What the translation leaves behind is cleared: functions, sequences, shape arithmetic on constants, unused
    nodes, equal constants and subexpressions. In place."""
    common.InlinePass()(model)
    fold_constants(model)
    for pass_ in (
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedOpsetsPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.OutputFixPass(),
        common.NameFixPass(),
    ):
        pass_(model)
    return model


def _rename_initializer(graph: ir.Graph, old: str, new: str) -> None:
    if old == new:
        return
    value = graph.initializers.pop(old)
    value.name = new
    if value.const_value is not None:
        value.const_value.name = new
    graph.initializers[new] = value


def _explain(component: Component, error: Exception) -> str:
    """The exporter's long report, cut to what the person at the keyboard needs."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None:
        chain.append(cause)
        cause = cause.__cause__
    text = "\n".join(str(e) for e in chain)
    lines = re.findall(r'File "([^"]+)", line (\d+), in (\w+)\n\s+(.*)', text)
    own = [entry for entry in lines if "/torch/" not in entry[0]]
    where = (
        f'{own[-1][0]}:{own[-1][1]} in {own[-1][2]}: "{own[-1][3].strip()}"'
        if own
        else "no line of the module is known"
    )
    root = str(chain[-1]).strip().splitlines()
    said = f"component {component.name!r} cannot be traced.\n  where: {where}\n"
    if isinstance(chain[-1], SamonnxError):  # it says itself what to do
        return f"{said}  why:   {chain[-1]}"
    return (
        f"{said}  why:   {root[0] if root else type(chain[-1]).__name__}\n"
        "  what to do: a value that decides control flow must be a pin of the recipe, or be computed without a branch "
        "(torch.where)"
    )


make_callable(__name__, "trace")
