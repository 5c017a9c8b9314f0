"""Random small ONNX graphs: valid, of the operators that passes look for, and with everything that other exporters do
and this project's own graphs do not: shared weights, defaults, control flow, old opsets, half precision, dead ends."""

from __future__ import annotations

from typing import Any

import onnx
import onnx_ir as ir
from hypothesis import strategies as st

from tests.random_construction import Construction
from tests.random_operators import PIECES
from tests.random_rarities import RARE_PIECES

__all__ = ["OPSETS", "random_models"]

OPSETS = (11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23)
_SHAPES: tuple[tuple[int, ...], ...] = ((2, 4, 5, 6), (2, 3, 4), (2, 6), (2, 2, 1, 6), (2, 4, 3, 3))
_DTYPES = (*(ir.DataType.FLOAT,) * 6, ir.DataType.DOUBLE, ir.DataType.FLOAT16)


@st.composite
def random_models(draw: Any, most_pieces: int = 12) -> onnx.ModelProto:
    """A model that the checker takes, full check included; one to three outputs."""
    opset = draw(st.sampled_from((*OPSETS, 17, 23, 23)))
    graph = Construction(draw, opset, draw(st.sampled_from(_DTYPES)), draw(st.integers(0, 3)) == 0)
    for shape in draw(st.lists(st.sampled_from(_SHAPES), min_size=1, max_size=2)):
        static = (1, *shape[1:]) if not graph.dynamic and graph.flag() else shape
        graph.data(*static)
    for piece in draw(st.lists(st.sampled_from((*PIECES, *RARE_PIECES)), min_size=3, max_size=most_pieces)):
        piece(graph)
    return _finished(graph)


def _finished(graph: Construction) -> onnx.ModelProto:
    made = [port.value for port in graph.ports if port.value.producer() is not None]
    outputs = made[-1:]
    for _ in range(graph.integer(0, 2)):  # also what other nodes read
        if made:
            outputs.append(graph.choice(made))
    if graph.initializers and graph.integer(0, 5) == 0:
        outputs.append(graph.choice([v for v in graph.initializers if v.const_value is not None]))
    if not outputs:
        outputs = [graph.node("Identity", [graph.inputs[-1]])]
        outputs[0].type, outputs[0].shape = graph.inputs[-1].type, graph.inputs[-1].shape
    if graph.integer(0, 5) == 0:  # defaults that a caller may override
        for value in graph.initializers[:2]:
            if value.dtype == graph.dtype and value not in outputs:
                graph.inputs.append(value)
    body = ir.Graph(
        graph.inputs,
        list(dict.fromkeys(outputs)),
        nodes=graph.nodes,
        initializers=graph.initializers,
        opset_imports={"": graph.opset},
        name="random",
    )
    for domain in {node.domain for node in graph.nodes}:
        body.opset_imports.setdefault(domain, 1)
    version = 8 if graph.opset < 21 else 10
    bare = ir.to_proto(ir.Model(body, ir_version=version, functions=graph.functions))
    proto = onnx.shape_inference.infer_shapes(bare, check_type=True, strict_mode=True)
    del proto.graph.value_info[:]
    onnx.checker.check_model(proto, full_check=True)
    return proto
