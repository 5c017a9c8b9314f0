"""EfficientViT: sizes of its maps, linear attention against every pair of cells, the formulas of its blocks."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import onnx_ir as ir
import openvino as ov
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from samonnx.graph_session import GraphSession
from samonnx.models.efficientvit import (
    EFFICIENTVIT_SIZES,
    ConvLayer,
    DSConv,
    EfficientViT,
    EfficientViTBlock,
    LinearAttention,
    MainBranch,
    MBConv,
)
from samonnx.programs.program import Component
from samonnx.trace import trace
from samonnx.weights import fill_seeded

TINY = EFFICIENTVIT_SIZES["efficientvit_tiny"]
WIDTH, HEAD = 8, 4

M = TypeVar("M", bound=nn.Module)


def seeded(module: M) -> M:
    fill_seeded(module.eval().requires_grad_(False))
    return module


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def attend_cell_by_cell(attention: LinearAttention, x: Tensor) -> Tensor:
    """f32 [1, C, H, W] → what enters the last projection, f64 [2C, H·W]: every pair of cells by itself."""
    depthwise, grouped = attention.aggreg[0].children()
    fine = attention.qkv.conv(x)
    rows = []
    for packed in (fine, grouped(depthwise(fine))):
        for head in packed[0].flatten(1).double().split(3 * HEAD):
            q, k, v = head.clamp(min=0)[:HEAD], head.clamp(min=0)[HEAD : 2 * HEAD], head[2 * HEAD :]
            out = torch.zeros_like(v)
            for cell in range(v.shape[1]):
                weights = torch.stack([q[:, cell] @ k[:, other] for other in range(v.shape[1])])
                if weights.sum() > 0:
                    out[:, cell] = v @ (weights / weights.sum())
            rows.append(out)
    return torch.cat(rows)


def silent_queries(attention: LinearAttention) -> None:
    """Weights that make every q zero and leave k and v."""
    weight = attention.qkv.conv.weight.unflatten(0, (-1, 3, HEAD))
    weight[:, 0] = 0


@pytest.mark.parametrize("side", [32, 33, 63, 64, 65, 112])
def test_the_map_is_a_thirty_second_of_the_image_rounded_up(side: int) -> None:
    model = seeded(EfficientViT(TINY))
    assert model(noise(1, 3, side, side)).shape == (1, 32, -(-side // 32), -(-side // 32))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 99))
def test_linear_attention_weighs_every_value_by_its_key_and_the_query(height: int, width: int, seed: int) -> None:
    attention = seeded(LinearAttention(WIDTH, HEAD))
    x = noise(1, WIDTH, height, width, seed=seed)
    attended = attend_cell_by_cell(attention, x).float().reshape(1, 2 * WIDTH, height, width)
    assert torch.allclose(attention(x), attention.proj(attended), atol=2e-6)


def test_each_image_of_a_batch_is_attended_alone() -> None:
    attention = seeded(LinearAttention(WIDTH, HEAD))
    x = noise(3, WIDTH, 4, 5)
    assert torch.allclose(attention(x), torch.cat([attention(image[None]) for image in x]), atol=1e-6)


def test_the_second_scale_mixes_neighbours_channel_by_channel_and_then_inside_each_part_of_a_head() -> None:
    attention = seeded(LinearAttention(WIDTH, HEAD))
    depthwise, grouped = attention.aggreg[0].children()
    parts = 3 * WIDTH // HEAD
    x = noise(1, 3 * WIDTH, 5, 4)
    patches = F.unfold(x, 5, padding=2).reshape(3 * WIDTH, 25, 20)
    filtered = torch.einsum("ck,ckn->cn", depthwise.get_parameter("weight").flatten(1), patches)
    mixed = torch.einsum(
        "poi,pin->pon", grouped.get_parameter("weight").reshape(parts, HEAD, HEAD), filtered.reshape(parts, HEAD, 20)
    ).reshape(1, 3 * WIDTH, 5, 4)
    assert torch.allclose(attention.aggreg[0](x), mixed, atol=1e-6)


def test_a_cell_whose_query_meets_no_key_attends_to_nothing_in_every_engine() -> None:
    attention = seeded(LinearAttention(WIDTH, HEAD))
    silent_queries(attention)
    x = noise(1, WIDTH, 4, 4)
    state = attention.proj.norm.state_dict()
    # The first scale's heads give zero; those of the second mix inside q alone, so they are silent too.
    rest = state["bias"] - state["running_mean"] / (state["running_var"] + 1e-5).sqrt() * state["weight"]
    expected = rest[None, :, None, None].expand(1, WIDTH, 4, 4)
    assert torch.allclose(attention(x), expected, atol=1e-6)

    model = trace(Component("attention", attention, {"x": noise(1, WIDTH, 4, 4, seed=2)}, ("y",))).model
    feeds = {"x": x.numpy()}
    assert np.allclose(GraphSession(model).run(feeds)["y"], expected, atol=1e-6)
    compiled = ov.Core().compile_model(
        ov.Core().read_model(ir.to_proto(model).SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    assert np.allclose(compiled(feeds)[compiled.output(0)], expected, atol=1e-6)


def test_a_convolution_layer_normalises_and_activates_where_asked_for() -> None:
    layer = seeded(ConvLayer(4, 6, 3, stride=2))
    x = noise(1, 4, 7, 5)
    state = layer.state_dict()
    mean, variance, weight, bias = (
        state[f"norm.{name}"][:, None, None] for name in ("running_mean", "running_var", "weight", "bias")
    )
    normed = (layer.conv(x) - mean) / (variance + 1e-5).sqrt() * weight + bias
    assert layer(x).shape == (1, 6, 4, 3)
    assert torch.allclose(layer(x), normed * (normed + 3).clamp(0, 6) / 6, atol=1e-6)

    plain = seeded(ConvLayer(4, 6, bias=True, norm=False, activation=False))
    assert set(plain.state_dict()) == {"conv.weight", "conv.bias"}
    assert torch.equal(plain(x), plain.conv(x))


def test_a_depthwise_separable_block_activates_only_its_depthwise_part() -> None:
    block = seeded(DSConv(6))
    assert block.depth_conv.conv.groups == 6
    assert block.depth_conv.activation
    assert not block.point_conv.activation
    x = noise(1, 6, 4, 4)
    assert torch.equal(block(x), block.point_conv(block.depth_conv(x)))


@pytest.mark.parametrize("inner_norms", [True, False])
def test_an_inverted_bottleneck_has_a_bias_where_it_has_no_norm(inner_norms: bool) -> None:
    block = seeded(MBConv(4, 6, stride=2, inner_norms=inner_norms))
    keys = set(block.state_dict())
    for part in ("inverted_conv", "depth_conv"):
        assert (f"{part}.conv.bias" in keys, f"{part}.norm.weight" in keys) == (not inner_norms, inner_norms)
    assert "point_conv.conv.bias" not in keys
    assert "point_conv.norm.weight" in keys
    assert block.inverted_conv.activation
    assert block.depth_conv.activation
    assert not block.point_conv.activation
    assert block.inverted_conv(noise(1, 4, 5, 5)).shape == (1, 16, 5, 5)
    assert block(noise(1, 4, 5, 5)).shape == (1, 6, 3, 3)


def test_a_block_of_attention_is_residual_twice() -> None:
    block = seeded(EfficientViTBlock(WIDTH, HEAD))
    x = noise(1, WIDTH, 4, 4)
    attended = x + block.context_module.main(x)
    assert torch.equal(block(x), attended + block.local_module.main(attended))


def test_only_the_blocks_that_change_the_shape_are_not_residual() -> None:
    model = EfficientViT(TINY)
    for stage in model.stages:
        assert isinstance(stage, nn.Module)
        for index, block in enumerate(stage.get_submodule("op_list").children()):
            branches = [module for module in block.modules() if isinstance(module, MainBranch)]
            assert [branch.shortcut for branch in branches] == [index > 0] * len(branches)
            assert branches
    x = noise(1, 6, 3, 3)
    convolution = seeded(nn.Conv2d(6, 6, 1))
    assert torch.equal(MainBranch(convolution, shortcut=False)(x), convolution(x))
    assert torch.equal(MainBranch(convolution, shortcut=True)(x), x + convolution(x))
