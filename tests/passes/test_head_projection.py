from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.passes.head_projection import HeadProjection, read_head_projection
from tests.passes.attention_oracle import random_feeds, reference
from tests.passes.projected_attention import ProjectedAttention


def value_of(model: ir.Model, name: str) -> ir.Value:
    """The operand of the attention that is `name`: q, k or v."""
    node = next(node for node in model.graph if node.op_type == "Attention")
    value = node.inputs["qkv".index(name)]
    assert value is not None
    return value


def read(model: ir.Model, name: str = "k") -> HeadProjection:
    found = read_head_projection(value_of(model, name))
    assert found is not None
    return found


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 3),
    heads=st.integers(1, 3),
    channels=st.integers(1, 4),
    single=st.sampled_from(["", "k"]),
    bare=st.sampled_from(["", "k"]),
    seed=st.integers(0, 99),
)
def test_what_it_reads_computes_the_value(
    batch: int, heads: int, channels: int, single: str, bare: str, seed: int
) -> None:
    attention = ProjectedAttention(
        batch=batch,
        heads=heads,
        channels=channels,
        keys=5,
        single=frozenset(single),
        bare=frozenset(bare),
        dtype="double",
    )
    model = attention.model(seed=seed)
    found = read(model)
    value = value_of(model, "k")
    model.graph.outputs[:] = [value]
    feeds = random_feeds(model, seed)
    (wanted,) = reference(model, feeds).values()
    computed = feeds[str(found.data.name)][:, None] @ found.weight
    assert (found.bias is None) == bool(bare)
    computed = np.broadcast_to(computed if found.bias is None else computed + found.bias, wanted.shape)
    np.testing.assert_allclose(computed, wanted, rtol=0, atol=1e-12)
    assert found.batch == (1 if single else batch)
    assert found.width == attention.width
    assert found.saved
    assert found.multiply_adds == found.batch * 5 * attention.width * heads * channels


@pytest.mark.parametrize("what", ["ks", "kr", "kt", "k"])
@pytest.mark.parametrize("single", ["", "k"])
def test_a_projection_with_another_reader_saves_nothing(what: str, single: str) -> None:
    attention = ProjectedAttention(batch=2, single=frozenset(single))
    rank = "b,s,c" if what == "ks" else "b,s,h,c"
    model = attention.model(("y) <", f"y, float[{rank}] other) <"), ("y = Add", f"other = Neg({what}) y = Add"))
    found = read(model)
    assert not found.saved
    assert found.multiply_adds == 0


def test_a_projection_that_is_an_output_saves_nothing() -> None:
    assert not read(ProjectedAttention(batch=2).model(("y) <", "y, float[b,s,c] ks) <"))).saved


@pytest.mark.parametrize(
    ("what", "old", "new"),
    [
        ("an activation", "ks = Add(kp, kb)", "kn = Add(kp, kb) ks = Relu(kn)"),
        ("heads that are rows", "kt = Transpose <perm = [0, 2, 1, 3]> (kr)", "kt = Reshape(kr, apart)"),
        ("another order", "kt = Transpose <perm = [0, 2, 1, 3]> (kr)", "kt = Transpose <perm = [0, 2, 1, 3]> (apart1)"),
        ("a weight that is an input", "kp = MatMul(kx, kw)", "kp = MatMul(kx, free)"),
        ("rows of a flat product", "kp = MatMul(kx, kw)", "kn = Reshape(kx, rows) kp = Gemm(kn, kw)"),
        ("heads that are repeated", "k = Expand(kt, kall)", "kn = Slice(kt, from, to, one) k = Expand(kn, all)"),
    ],
)
def test_it_declines(what: str, old: str, new: str) -> None:
    shapes = (
        "int64[4] apart = {1, 2, 40, 4}, int64[2] rows = {40, 6}, int64[1] from = {0}, int64[1] to = {1},"
        " int64[1] one = {1}, int64[4] all = {2, 2, 40, 4}"
    )
    attention = ProjectedAttention(batch=2, single=frozenset("k"))
    inputs = ("float[6,8] kw", "float[6,8] free, float[1,40,2,4] apart1, float[6,8] kw")
    model = attention.model((old, new), inputs, ("> {", f", {shapes}> {{"))
    assert read_head_projection(value_of(model, "k")) is None, what
