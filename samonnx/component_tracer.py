"""Trace the components of one program after the other; those that programs share are traced once.

Tracing is Python on one core; ONNX Runtime checks what was traced on the other.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import torch

from samonnx.errors import VerificationError
from samonnx.programs.program import Component
from samonnx.trace import TracedComponent, parameter_names, trace
from samonnx.verify import Comparison, component_check, require, verify_component

__all__ = ["COMPONENT_TOLERANCE", "ComponentTracer", "trace_components"]

COMPONENT_TOLERANCE = 1e-4
"""Of the largest magnitude: float32 rounding of the deepest component stays ten times below, a forgotten term ten
times above."""


class ComponentTracer:
    """Traces components of `model`, and has each compared with its module in `pool` unless `tolerance` is None or one
    of the programs that it is `seen_in` is among `programs`.

    Of components that share their name, as those of programs that share them do, the first is traced; those that share
    their module and differ in their bindings get copies of one trace.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        pool: Executor,
        tolerance: float | None = COMPONENT_TOLERANCE,
        programs: Collection[str] = (),
    ) -> None:
        self.traced: dict[str, TracedComponent] = {}
        self._programs = frozenset(programs)
        self._unchecked: list[Callable[[], tuple[Comparison, ...]]] = []
        self._names = parameter_names(model)
        self._pool, self._tolerance = pool, tolerance
        self._by_module: dict[int, TracedComponent] = {}
        self._checks: list[Future[tuple[Comparison, ...]]] = []

    def unknown(self, components: Iterable[Component]) -> tuple[Component, ...]:
        """Those that are not traced yet, each name once."""
        by_name = {component.name: component for component in reversed(tuple(components))}
        return tuple(part for part in reversed(by_name.values()) if part.name not in self.traced)

    def trace(self, components: Iterable[Component]) -> None:
        """Adds the components that are not traced yet to `traced`. Raises TraceError."""
        for component in self.unknown(components):
            known = self._by_module.get(id(component.module))
            if known is not None:
                self.traced[component.name] = TracedComponent(component.name, known.model.clone())
                continue
            one = trace(component, self._names)
            self.traced[component.name] = self._by_module[id(component.module)] = one
            if self._tolerance is None:
                continue
            # Numbers are compared with what the module was made from.
            compared = replace(component, module=component.eager)
            # A copy: passes may change the trace before the engine gets to it.
            copy = TracedComponent(one.name, one.model.clone())
            if component.seen_in & self._programs:
                self._unchecked.append(partial(verify_component, compared, copy, self._tolerance))
            else:
                self._checks.append(self._pool.submit(component_check(compared, copy, self._tolerance)))

    def explained(self, error: VerificationError) -> VerificationError:
        """`error` of a program, with what is known of its cause: now the components that it stood for are compared
        on their own."""
        wrong = [one for check in self._unchecked for one in check() if not one.ok]
        if not wrong:
            return VerificationError(f"{error}\n  every component on its own gives its module's numbers")
        lines = "\n".join(f"  - {one.what}: error {one.largest_error:.2e}" for one in wrong)
        return VerificationError(f"{error}\n  what comes from these components, which are off on their own:\n{lines}")

    def require(self) -> None:
        """Waits for all comparisons. Raises VerificationError for the first component that is not its module."""
        for check in self._checks:
            require(check.result())


def trace_components(
    components: Iterable[Component], model: torch.nn.Module, tolerance: float | None = COMPONENT_TOLERANCE
) -> dict[str, TracedComponent]:
    """All of them at once, verified; see `ComponentTracer`."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        tracer = ComponentTracer(model, pool, tolerance)
        tracer.trace(components)
        tracer.require()
    return tracer.traced
