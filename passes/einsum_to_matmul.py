"""The pass `einsum_to_matmul`: an Einsum that is a batched matrix product, spelled as one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from samonnx.passes.graph_values import replace_value
from samonnx.passes.interface import Exactness, GraphPass, PassResult
from samonnx.passes.node_builder import NodeBuilder
from samonnx.passes.shape_inference import infer_shapes

__all__ = ["EinsumToMatmul"]


@dataclass(frozen=True)
class EinsumToMatmul(GraphPass):
    """Einsum over two operands with one summed axis → Transpose, MatMul, Transpose.

        y = Einsum("bqhd,bthd->bhqt", q, k)   →   y = MatMul(Transpose(q, bhqd), Transpose(k, bhdt))

    Passes that look for matrix products (`fuse_attention` among them) then see one.

    Exact:    in real arithmetic, the same sum of the same products.
    Declines: another number of operands; a letter twice in a term, an ellipsis, an output that is not spelled out; not
              exactly one summed axis and one axis of its own for each operand; a summed axis or shared axes whose sizes
              are not known to be equal.
    Cost:     transposes that the engine would have made inside Einsum.
    """

    name: ClassVar[str] = "einsum_to_matmul"
    exactness: ClassVar[Exactness] = Exactness.REAL_EXACT
    tolerance: ClassVar[float] = 1e-5

    def call(self, model: ir.Model) -> PassResult:
        """Raises nothing."""
        nodes = [node for node in model.graph if node.op_type == "Einsum" and not node.domain]
        rewritten = [_rewrite(model.graph, node) for node in nodes]
        if any(rewritten):
            infer_shapes(model)
        return PassResult(model, any(rewritten))


@dataclass(frozen=True)
class _Product:
    """The letters of each term; `batch` stand in all three, `summed` in the operands only."""

    left: str
    right: str
    out: str
    batch: str
    summed: str


def _rewrite(graph: ir.Graph, node: ir.Node) -> bool:
    product = _read(node)
    left, right = (*node.inputs, None, None)[:2]
    if product is None or left is None or right is None or not _sizes_agree(product, left, right):
        return False
    (rows,) = set(product.left) - set(product.right)
    (columns,) = set(product.right) - set(product.left)
    old = node.outputs[0]
    build = NodeBuilder(graph, node.name or str(old.name), node)
    left = _moved(build, left, product.left, product.batch + rows + product.summed)
    right = _moved(build, right, product.right, product.batch + product.summed + columns)
    result = _moved(build, build.node("MatMul", left, right), product.batch + rows + columns, product.out)
    result.type, result.shape = old.type, old.shape
    replace_value(graph, old, result)
    graph.remove(node, safe=True)
    return True


def _read(node: ir.Node) -> _Product | None:
    equation = node.attributes.get_string("equation", "").replace(" ", "")
    operands, arrow, out = equation.partition("->")
    terms = operands.split(",")
    if (
        len(terms) != 2
        or not arrow
        or not all(term.isalpha() and len(set(term)) == len(term) for term in (*terms, out))
    ):
        return None
    left, right = terms
    shared = [letter for letter in left if letter in right]
    batch = "".join(letter for letter in shared if letter in out)
    summed = "".join(letter for letter in shared if letter not in out)
    alone = set(left) ^ set(right)
    fits = len(summed) == 1 and len(left) == len(right) == len(batch) + 2 and set(out) == {*batch, *alone}
    return _Product(left, right, out, batch, summed) if fits else None


def _sizes_agree(product: _Product, left: ir.Value, right: ir.Value) -> bool:
    """Einsum lets a size of 1 stand for any; MatMul does so on batch axes only, and not everywhere."""
    if left.shape is None or right.shape is None:
        return False
    pairs = [
        (left.shape[product.left.index(i)], right.shape[product.right.index(i)]) for i in product.batch + product.summed
    ]
    return all(one == other and (isinstance(one, int) or one.value is not None) for one, other in pairs)


def _moved(build: NodeBuilder, value: ir.Value, old: str, new: str) -> ir.Value:
    if old == new:
        return value
    return build.node("Transpose", value, perm=tuple(old.index(letter) for letter in new))
