from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.passes.evaluation import run_model
from samonnx.passes.interface import Array
from samonnx.passes.lower.onnx import LowerOnnx
from samonnx.passes.mask_as_channel import MaskAsChannel
from tests.passes.attention_oracle import TOLERANCE, attention, largest_error, random_feeds, reference
from tests.passes.graph_text import body_of, model_of

ALL = MaskAsChannel(least_pairs=1)


def masked(mask: str, dtype: str = "float", heads: int = 2, channels: int = 4, scale: str = "0.3") -> ir.Model:
    return model_of(
        f"({dtype}[2,{heads},5,{channels}] q, {dtype}[2,{heads},7,{channels}] k, {dtype}[2,{heads},7,3] v, {mask} m)"
        f" => ({dtype}[2,{heads},5,3] y) {{ y = Attention <scale = {scale}> (q, k, v, m) }}"
    )


def off(valid: Array, dtype: str) -> Array:
    return np.where(valid, 0, -1e30).astype({"float": np.float32, "double": np.float64}[dtype])


def test_the_mask_input_becomes_a_channel_of_keys_and_a_constant_one_of_queries() -> None:
    model = masked("float[2,1,1,7]")
    assert ALL(model).modified
    lines = [line.split(" = ")[1].split("(")[0] for line in body_of(model)]
    assert lines == ["Reshape", "Expand", "Expand", "Concat", "Concat", "Attention"]
    node = model.graph[-1]
    assert [str(value.shape) for value in node.inputs if value is not None] == ["[2,2,5,5]", "[2,2,7,5]", "[2,2,7,3]"]
    assert node.attributes["scale"].as_float() == pytest.approx(0.3)
    assert not ALL(model).modified


@settings(max_examples=40, deadline=None)
@given(
    dtype=st.sampled_from(["float", "double"]),
    shape=st.sampled_from([(2, 1, 1, 7), (1, 2, 1, 7), (1, 7), (1, 1, 7), (2, 2, 1, 7)]),
    scale=st.sampled_from(["0.3", "1.0", "0.0625", "7.5"]),
    channels=st.integers(1, 9),
    keep=st.floats(0, 1),
    boolean=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_channel_masks_as_the_input_did(
    dtype: str, shape: tuple[int, ...], scale: str, channels: int, keep: float, boolean: bool, seed: int
) -> None:
    model = masked(f"{'bool' if boolean else dtype}{list(shape)}".replace(" ", ""), dtype, 2, channels, scale)
    feeds = random_feeds(model, seed)
    valid = np.random.default_rng(seed).random(shape) < keep
    valid[..., seed % 7] = True
    feeds["m"] = valid if boolean else off(valid, dtype)
    wanted = reference(model, feeds)
    ALL(model)
    assert largest_error(wanted, reference(model, feeds)) <= TOLERANCE[dtype]


@given(seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_any_finite_mask_is_kept_not_only_zeros_and_large_ones(seed: int) -> None:
    model = masked("double[2,1,1,7]", "double")
    feeds = random_feeds(model, seed)
    wanted = reference(model, feeds)
    ALL(model)
    assert largest_error(wanted, reference(model, feeds)) <= 1e-12


def test_what_lies_at_a_masked_key_does_not_change_a_bit() -> None:
    model = masked("float[2,1,1,7]")
    ALL(model)
    LowerOnnx()(model)
    feeds = random_feeds(model, 0)
    valid = np.array([1, 0, 1, 1, 0, 0, 1], bool)
    feeds["m"] = off(np.broadcast_to(valid, (2, 1, 1, 7)), "float")
    first = run_model(model, feeds)["y"]
    feeds["v"][:, :, ~valid] *= 1e6
    feeds["k"][:, :, ~valid] *= -1e6
    np.testing.assert_array_equal(run_model(model, feeds)["y"], first)
    kept = attention(feeds["q"], feeds["k"][:, :, valid], feeds["v"][:, :, valid], None, 0.3)
    np.testing.assert_allclose(first, kept, atol=1e-5)


def test_a_row_with_every_key_masked_is_finite() -> None:
    model = masked("float[2,1,1,7]")
    ALL(model)
    LowerOnnx()(model)
    feeds = random_feeds(model, 0) | {"m": np.full((2, 1, 1, 7), -1e30, np.float32)}
    assert np.isfinite(run_model(model, feeds)["y"]).all()


@pytest.mark.parametrize("mask", ["float[2,1,5,7]", "float[5,7]", "bool[1,2,5,7]"])
def test_a_mask_that_differs_by_query_stays(mask: str) -> None:
    model = masked(mask)
    assert not ALL(model).modified


def test_no_mask_no_change() -> None:
    assert not ALL(model_of("(float[1,1,5,4] q) => (float[1,1,5,4] y) { y = Attention(q, q, q) }")).modified


def test_small_attentions_keep_their_mask() -> None:
    assert not MaskAsChannel()(masked("float[2,1,1,7]")).modified
