from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.passes.evaluation import run_model
from samonnx.passes.join_keys import JoinKeys
from samonnx.passes.lower.onnx import LowerOnnx
from samonnx.passes.lower.opset import LowerOpset
from samonnx.passes.lower.ort_cpu import LowerOrtCpu
from samonnx.passes.lower.rotary_ort_cpu import LowerRotaryOrtCpu
from samonnx.passes.mask_as_channel import MaskAsChannel
from tests.passes.attention_oracle import largest_error, random_feeds, reference, typed
from tests.passes.rotary_graphs import ANY_DTYPE, MEMORY_WEIGHTS, first_row_still, memory_attention

TURNED = """(float[1, 3, 5, 4] x, float[5, 2] c, float[5, 2] s) => (float[1, 3, 5, 4] y)
<int64[1, 5] p = {0, 1, 2, 3, 4}> { y = RotaryEmbedding <interleaved = 1> (x, c, s, p) }"""


def test_the_operator_changes_its_domain_and_the_order_of_its_inputs() -> None:
    model = typed(TURNED, "c", "s")
    feeds = random_feeds(model, 0)
    wanted = reference(model, feeds)
    assert LowerRotaryOrtCpu()(model).modified
    [node] = list(model.graph)
    assert (node.domain, [value.name for value in node.inputs]) == ("com.microsoft", ["x", "p", "c", "s"])  # type: ignore[union-attr]
    assert not LowerRotaryOrtCpu()(model).modified
    assert largest_error(wanted, run_model(model, feeds)) <= 1e-6


@settings(max_examples=25, deadline=None)
@given(
    objects=st.integers(1, 3),
    slots=st.integers(1, 3),
    cells=st.integers(2, 5),
    pointers=st.integers(1, 4),
    masked=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_whole_lowering_of_memory_attention_equals_the_traced_graph(
    objects: int, slots: int, cells: int, pointers: int, masked: bool, seed: int
) -> None:
    text = memory_attention("float", objects, slots, cells, pointers, masked=masked)
    model = first_row_still(typed(text, *MEMORY_WEIGHTS, seed=seed))
    feeds = random_feeds(model, seed)
    wanted = reference(model, feeds)
    passes = (
        MaskAsChannel(least_pairs=1),
        JoinKeys(),
        LowerOrtCpu(least_pairs=1, least_channels=1),
        LowerRotaryOrtCpu(),
        LowerOnnx(),
        LowerOpset(),
    )
    ANY_DTYPE(model)
    for pass_ in passes:
        pass_(model)
    assert {node.op_type for node in model.graph if node.domain} == {"MultiHeadAttention", "RotaryEmbedding"}
    assert model.opset_imports[""] == 21
    assert largest_error(wanted, run_model(model, feeds)) <= 1e-5


@pytest.mark.parametrize(
    ("what", "old", "new"),
    [
        ("no positions", "(x, c, s, p)", "(x, c3, s3)"),
        ("a dtype that the kernel lacks", "float[", "bfloat16["),
    ],
)
def test_it_declines(what: str, old: str, new: str) -> None:
    text = TURNED.replace(old, new)
    assert text != TURNED
    text = text.replace("float[5, 2] s)", "float[5, 2] s, float[1, 5, 2] c3, float[1, 5, 2] s3)")
    assert not LowerRotaryOrtCpu()(typed(text, "c", "s", "c3", "s3")).modified, what
