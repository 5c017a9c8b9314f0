"""Every pass of ours, on a graph that it rewrites, held to the same properties as everybody's: `assert_exact`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir
import pytest

from samonnx.passes import PASSES, GraphPass, PinInputs, assert_exact, pass_by_name
from samonnx.passes.interface import Array
from samonnx.passes.merge_parallel_convolutions import MergeParallelConvolutions
from tests.passes import test_absorb_key_projections as absorb_key_projections
from tests.passes import test_absorb_query_projections as absorb_query_projections
from tests.passes import test_commute_resize as commute_resize
from tests.passes import test_einsum_to_matmul as einsum_to_matmul
from tests.passes import test_fold_affine as fold_affine
from tests.passes import test_fuse_linear_chain as fuse_linear_chain
from tests.passes import test_fuse_nearest_resize as fuse_nearest_resize
from tests.passes import test_join_keys as join_keys
from tests.passes import test_mask_as_channel as mask_as_channel
from tests.passes import test_merge_parallel_convolutions as merge_parallel_convolutions
from tests.passes import test_pad_before_broadcast as pad_before_broadcast
from tests.passes import test_pin_inputs as pin_inputs
from tests.passes import test_reassociate_products as reassociate_products
from tests.passes import test_sink_value_projection as sink_value_projection
from tests.passes import test_transposed_conv_to_matmul as transposed_conv_to_matmul
from tests.passes import test_unroll_memory as unroll_memory
from tests.passes import test_upscale_by_phase as upscale_by_phase
from tests.passes.attention_oracle import random_feeds, typed
from tests.passes.graph_text import model_of
from tests.passes.lower import test_ort_cpu as lower_ort_cpu
from tests.passes.lower import test_rotary_ort_cpu as lower_rotary_ort_cpu
from tests.passes.rotary_graphs import MEMORY_WEIGHTS, memory_attention


@dataclass(frozen=True)
class Case:
    """A pass and a graph that it rewrites; `feeds` where the graph's own would not do."""

    pass_: GraphPass
    graph: Callable[[], ir.Model]
    feeds: Mapping[str, Array] | None = field(default=None)
    float64: bool = True


def default(name: str) -> GraphPass:
    return pass_by_name(name)()


def of(text: str, *weights: str) -> Callable[[], ir.Model]:
    return lambda: typed(text, *weights)


def masked_keys() -> ir.Model:
    model = join_keys.fused(memory_attention("float", 1, 2, 5, 3))
    join_keys.MASKED(model)
    return model


TURNED = """(float[1, 3, 5, 4] x, float[5, 2] c, float[5, 2] s) => (float[1, 3, 5, 4] y, float[1, 3, 5, 4] z)
<int64[1, 5] p = {0, 1, 2, 3, 4}> { y = RotaryEmbedding <interleaved = 1> (x, c, s, p) z = Neg(y) }"""
ATTENTION = "(float[1,2,5,4] q, float[1,2,7,4] k) => (float[1,2,5,4] y) { y = Attention <scale = 0.5> (q, k, k) }"
MOVES = """(float[2,3,4,5] x) => (float[2,4,5,3] y) {
    a = Transpose <perm = [0, 2, 1, 3]> (x)
    y = Transpose <perm = [0, 1, 3, 2]> (a)
}"""
CASES = {
    "fold_constants": Case(
        default("fold_constants"), of("(float[2] x) => (float[2] y) <float a = {2}> { b = Neg(a) y = Mul(x, b) }")
    ),
    "eliminate_dead": Case(default("eliminate_dead"), of("(float[2] x) => (float[2] y) { y = Neg(x) z = Abs(x) }")),
    "merge_duplicates": Case(
        default("merge_duplicates"), of("(float[2] x) => (float[2] y) { a = Exp(x) b = Exp(x) y = Add(a, b) }")
    ),
    "pin_inputs": Case(PinInputs({"memory": 0.0, "valid": False}), of(pin_inputs.BANK)),
    "merge_moves": Case(default("merge_moves"), of(MOVES)),
    "pad_before_broadcast": Case(default("pad_before_broadcast"), of(pad_before_broadcast.BIAS)),
    "fold_affine": Case(default("fold_affine"), of(fold_affine.PROJECTED, "s", "d", "w", "b", "q")),
    "merge_parallel_convolutions": Case(
        MergeParallelConvolutions(), of(merge_parallel_convolutions.REPVIT, *merge_parallel_convolutions.WEIGHTS)
    ),
    "fuse_linear_chain": Case(default("fuse_linear_chain"), of(fuse_linear_chain.NARROWING, "w", "b", "v", "c")),
    "commute_resize": Case(commute_resize.ALWAYS, of(commute_resize.TWO, "w", "b", "v")),
    "reassociate_products": Case(default("reassociate_products"), of(reassociate_products.ONE, "m", "b")),
    "fuse_nearest_resize": Case(default("fuse_nearest_resize"), of(fuse_nearest_resize.text())),
    "transposed_conv_to_matmul": Case(
        default("transposed_conv_to_matmul"),
        of(
            transposed_conv_to_matmul.TILES.format(dtype="float", batch=1, channels=3, h=4, w=5, k=2, b=", b"), "w", "b"
        ),
    ),
    "einsum_to_matmul": Case(default("einsum_to_matmul"), of(einsum_to_matmul.einsum("bqhd", "bthd", "bhqt"))),
    "fuse_attention": Case(
        default("fuse_attention"),
        of("""(float[2,2,5,4] q, float[2,2,7,4] k, float[2,2,7,3] v) => (float[2,2,5,3] y) <float s = {0.5}> {
            t = Transpose <perm = [0, 1, 3, 2]> (k)
            l = MatMul(q, t)
            m = Mul(l, s)
            p = Softmax(m)
            y = MatMul(p, v)
        }"""),
    ),
    "fuse_rotary": Case(default("fuse_rotary"), of(memory_attention("float", 1, 2, 5, 3), *MEMORY_WEIGHTS)),
    "unroll_memory": Case(
        unroll_memory.CACHED,
        of(unroll_memory.CACHE),
        random_feeds(model_of("(float[1,1,2,4] q, float[1,1,6,4] cache, bool[1,6] valid) => () {}"), 0),
    ),
    "sink_value_projection": Case(default("sink_value_projection"), of(sink_value_projection.PLAIN, "w", "b")),
    "absorb_key_projections": Case(default("absorb_key_projections"), absorb_key_projections.FEW_QUERIES.model),
    "absorb_query_projections": Case(default("absorb_query_projections"), absorb_query_projections.FEW_KEYS.model),
    "upscale_by_phase": Case(default("upscale_by_phase"), upscale_by_phase.MASKS.model),
    "mask_as_channel": Case(mask_as_channel.ALL, lambda: mask_as_channel.masked("float[2,1,1,7]", scale="0.25")),
    "join_keys": Case(default("join_keys"), masked_keys, float64=False),  # the rotation has no float64
    "lower_onnx": Case(default("lower_onnx"), of(ATTENTION)),
    "lower_ort_cpu": Case(lower_ort_cpu.ALL, lambda: lower_ort_cpu.attention(2, 5, 7, 4, 4)),
    "lower_openvino": Case(default("lower_openvino"), of(ATTENTION)),
    "lower_rotary": Case(default("lower_rotary"), of(TURNED, "c", "s"), float64=False),
    "lower_rotary_ort_cpu": Case(default("lower_rotary_ort_cpu"), of(lower_rotary_ort_cpu.TURNED, "c", "s")),
    "lower_opset": Case(default("lower_opset"), of(MOVES)),
}


def test_no_pass_is_left_out() -> None:
    assert set(CASES) == set(PASSES)
    assert all(case.pass_.name == name for name, case in CASES.items())


@pytest.mark.parametrize("name", CASES)
def test_a_pass_is_exact_by_the_public_helper(name: str) -> None:
    case = CASES[name]
    model = case.graph()
    before = ir.to_onnx_text(model)
    after = assert_exact(case.pass_, model, feeds=case.feeds, float64=case.float64)
    assert ir.to_onnx_text(after) != before, "it was to rewrite the graph"
