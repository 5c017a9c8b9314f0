from __future__ import annotations

import pytest

from samonnx.passes.attention_call import UnreadableAttentionError, is_attention, read_attention
from tests.passes.graph_text import model_of


def test_a_call_is_read_with_its_sizes_and_the_default_scale() -> None:
    text = """(float[2,3,5,16] q, float[2,3,7,16] k, float[2,3,7,4] v, bool[2,1,1,7] m) => (float[2,3,5,4] y) {
        y = Attention(q, k, v, m)
    }"""
    node = model_of(text).graph[0]
    call = read_attention(node)
    sizes = (call.batch, call.heads, call.queries, call.keys, call.channels, call.value_channels)
    assert sizes == (2, 3, 5, 7, 16, 4)
    assert (call.scale, call.pairs) == (0.25, 2 * 3 * 5 * 7)
    assert call.mask is node.inputs[3]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("y = Attention <is_causal = 1> (x, x, x)", "it is causal or has a soft cap"),
        ("y = Attention <softcap = 1.0> (x, x, x)", "it is causal or has a soft cap"),
        ("y, a, b = Attention(x, x, x, , x, x)", "it has a cache or further outputs"),
        ("y = Attention(x, g, g)", "grouped heads"),
        ("y = Attention(z, z, z)", "expected rank 4 and static"),
        ("y = Attention <softmax_precision = 11> (x, x, x)", "its softmax has another precision"),
    ],
)
def test_other_forms_are_refused_with_the_reason(text: str, reason: str) -> None:
    model = model_of(f"(float[1,2,3,4] x, float[1,1,3,4] g, float[1,2,n,4] z) => (float[1,2,3,4] y) {{ {text} }}")
    with pytest.raises(UnreadableAttentionError, match=reason):
        read_attention(model.graph[0])


def test_the_contributed_operator_of_the_same_name_is_another() -> None:
    node = model_of("(float[1,2,6] x, float[6,6] w) => (float[1,2,2] y) { y = com.microsoft.Attention(x, w) }").graph[0]
    assert not is_attention(node)


def test_half_precision_is_refused() -> None:
    model = model_of("(float16[1,1,2,4] q) => (float16[1,1,2,4] y) { y = Attention(q, q, q) }")
    with pytest.raises(UnreadableAttentionError, match="its dtype is FLOAT16: rearranging it would round elsewhere"):
        read_attention(model.graph[0])
