"""A program without tracing: its components in eager PyTorch, joined by its wires. What graphs are compared with."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from samonnx.eager_lock import EAGER_LOCK
from samonnx.programs.program import Component, Program

__all__ = ["EagerRun"]


class EagerRun:
    """Runs programs on eager components and keeps what they gave: a component that is asked again for the same input
    tensors (the same objects) is not run again, so programs that share components share the work."""

    def __init__(self) -> None:
        self._results: dict[tuple[str, tuple[int, ...]], tuple[Tensor, ...]] = {}
        self._inputs: list[Tensor] = []  # keeps the tensors of the keys alive, so that no id is used twice

    def values(
        self, program: Program, feeds: Mapping[str, Tensor], given: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Every value of the program: inputs by port, what components returned by "component.output", and outputs by
        port.

        `given`: values that are taken as they are, in place of what the component would return. A component over
        padded slots gets those that are valid for the first object alone, which is what `unroll_memory` promises for
        the padded ones (for one object, or for several with the same bank); without any valid slot its result is NaN,
        since nothing may depend on it.
        """
        values = {**feeds, **(given or {})}
        sources = {wire.target: wire.source for wire in program.wires}
        for component in program.components:
            outputs = [f"{component.name}.{name}" for name in component.outputs]
            if all(name in values for name in outputs):
                continue
            inputs = {name: values[sources[f"{component.name}.{name}"]] for name in component.inputs}
            valid = {
                symbol: values[sources[f"{component.name}.{name}"]][0] for symbol, name in component.validity.items()
            }
            results = self._run(component, _filled_slots(component, inputs, valid))
            if valid and not any(bool(slots.any()) for slots in valid.values()):
                results = tuple(torch.full_like(result, torch.nan) for result in results)
            values |= {name: tensor for name, tensor in zip(outputs, results, strict=True) if name not in values}
        return values | {port.name: values[sources[port.name]] for port in program.outputs}

    def _run(self, component: Component, inputs: list[Tensor]) -> tuple[Tensor, ...]:
        key = (component.name, tuple(id(tensor) for tensor in inputs))
        if key not in self._results:
            with EAGER_LOCK, torch.inference_mode():
                returned = component.eager(*inputs)
            self._results[key] = returned if isinstance(returned, tuple) else (returned,)
            self._inputs += inputs
        return self._results[key]


def _filled_slots(component: Component, inputs: Mapping[str, Tensor], valid: Mapping[str, Tensor]) -> list[Tensor]:
    found = []
    for name, tensor in inputs.items():
        for axis, symbol in component.symbolic.get(name, {}).items():
            kept = valid[symbol].nonzero()[:, 0]
            if len(kept) == tensor.shape[axis]:
                continue  # the same object, so that its result is found again
            tensor = tensor.index_select(axis, kept if len(kept) else torch.zeros(1, dtype=torch.int64))
        found.append(tensor)
    return found
