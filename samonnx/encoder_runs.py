"""Image encoders that have run: many graphs of a recipe begin with the same one, and need not run it again.

    graph = encoder ─ maps ─ the rest          (tracks of several kinds, `encode_image`)
    known encoder, known frame:                maps ─ the rest

Two encoders are the same if their fingerprints are equal (`samonnx.fingerprint`): the same operators over the same
weights, so that an engine gives the same maps for the same image. What is behind the maps is all that is left to
verify of such a graph.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from samonnx.fingerprint import Fingerprints
from samonnx.graph_session import Array

__all__ = ["EncoderRuns", "behind"]


class EncoderRuns:
    """Maps by target, encoder and frame of the clip. `maps` are named by what they are ("features"), and a graph says
    what it calls each of them."""

    def __init__(self) -> None:
        self._fingerprints = Fingerprints()
        self._maps: dict[tuple[str, str, int], dict[str, Array]] = {}

    def fingerprint(self, graph: ir.Model, called: Mapping[str, str]) -> str | None:
        """Of the part of `graph` that ends in the maps (`called`: map → its name in the graph); None if one of them is
        not there."""
        return self._fingerprints.of(graph, [called[name] for name in sorted(called)])

    def known(self, target: str, encoder: str | None, frame: int) -> Mapping[str, Array] | None:
        """What the encoder made of the clip's frame for this target, if it has run."""
        return None if encoder is None else self._maps.get((target, encoder, frame))

    def record(self, target: str, encoder: str | None, frame: int, maps: Mapping[str, Array]) -> None:
        if encoder is not None:
            self._maps.setdefault((target, encoder, frame), dict(maps))


def behind(graph: ir.Model, names: Mapping[str, str]) -> ir.Model:
    """A copy of `graph` that takes values of its inside as inputs (`names`: value → name of the input) and computes
    nothing that only they needed. Shares the tensors. Raises ValueError for a value that is an output of the graph."""
    copy = graph.clone()
    values = {str(output.name): output for node in copy.graph for output in node.outputs}
    for name, given in names.items():
        value = values[name]
        if value.is_graph_output():
            raise ValueError(f"{name} is an output of graph {graph.graph.name!r}; expected a value of its inside")
        port = ir.Value(name=given, type=value.type, shape=value.shape)
        value.replace_all_uses_with(port)
        copy.graph.inputs.append(port)
    RemoveUnusedNodesPass()(copy)
    return copy
