"""Equal weights of several graphs, held in memory once.

Each graph of a recipe folds and transposes the weights that it shares with the others on its own. Emit stores equal
bytes once; this does the same for the compiler's memory, while the graphs are still being verified.
"""

from __future__ import annotations

import hashlib

import onnx_ir as ir

__all__ = ["TensorPool"]

_POOLED_FROM = 1 << 10
"""Bytes; smaller tensors cost less than the search for them."""


class TensorPool:
    """Keeps one tensor of each dtype, shape and content that it was shown."""

    def __init__(self) -> None:
        self._by_content: dict[bytes, ir.TensorProtocol] = {}
        self._kept: set[int] = set()

    def share(self, model: ir.Model) -> None:
        """Let the model's initialisers take tensors that other models have already, where they are equal in dtype,
        shape and every bit. In place; what the graph computes stays the same."""
        for graph in model.graphs():
            for value in graph.initializers.values():
                tensor = value.const_value
                if tensor is None or tensor.nbytes < _POOLED_FROM or id(tensor) in self._kept:
                    continue
                known = self._by_content.setdefault(_content(tensor), tensor)
                if known is tensor:
                    self._kept.add(id(tensor))
                else:
                    value.const_value = known


def _content(tensor: ir.TensorProtocol) -> bytes:
    said = f"{tensor.dtype.name} {tuple(tensor.shape)} "
    return hashlib.blake2b(said.encode() + tensor.tobytes(), digest_size=20).digest()
