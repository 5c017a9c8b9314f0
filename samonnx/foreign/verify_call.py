"""Verify the program of a call: its graph against the foreign model's own eager forward, before any replacement.

Without a bank, on two draws of the inputs: the one that it was traced with, and one that the trace has not seen. With a
bank, on as many calls in a row as the recipe's `verify.frames` says, from the empty bank; each call gets the bank that
the eager side gave, so that errors do not add up.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir
from torch import Tensor

from samonnx.eager_program import EagerRun
from samonnx.engines import OpenGraph
from samonnx.graph_session import GraphSession
from samonnx.programs.call import call_feeds
from samonnx.programs.program import Program
from samonnx.recipe_calls import CallSpec
from samonnx.verify import Comparison, compare

__all__ = ["CallVerifier"]

DRAWS = 2


class CallVerifier:
    """Keeps the eager results of each program for its further targets."""

    def __init__(self, calls: Mapping[str, CallSpec], tolerance: float, frames: int) -> None:
        self._calls, self._tolerance, self._frames = calls, tolerance, frames
        self._known: dict[str, list[tuple[dict[str, Tensor], dict[str, Tensor]]]] = {}

    def verify(self, graph: ir.Model, program: Program, open_graph: OpenGraph = GraphSession) -> tuple[Comparison, ...]:
        """One figure an output, the largest over all runs."""
        session = open_graph(graph)
        names = [value.name for value in graph.graph.inputs]
        worst: dict[str, Comparison] = {}
        for feeds, expected in self._runs(program):
            found = session.run({str(name): feeds[str(name)].numpy() for name in names})
            for port in program.outputs:
                one = compare(port.name, found[port.name], expected[port.name].numpy(), self._tolerance)
                if port.name not in worst or one.largest_error > worst[port.name].largest_error:
                    worst[port.name] = one
        return tuple(worst.values())

    def _runs(self, program: Program) -> list[tuple[dict[str, Tensor], dict[str, Tensor]]]:
        """Feeds, and what the eager model gives for them."""
        if program.name not in self._known:
            call, runs = self._calls[program.name], list[tuple[dict[str, Tensor], dict[str, Tensor]]]()
            eager = EagerRun()
            for draw in range(self._frames if program.bank else DRAWS):
                feeds = call_feeds(call, draw, empty_bank=True)
                if runs:
                    feeds |= {tensor.input: runs[-1][1][tensor.output] for tensor in program.bank}
                runs.append((feeds, eager.values(program, feeds)))
            self._known[program.name] = runs
        return self._known[program.name]
