"""The segmentation head against a plain definition, where its masks come from, and what never reaches them."""

from __future__ import annotations

from functools import cache

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from samonnx.errors import SamonnxError
from samonnx.graph_session import GraphSession
from samonnx.models.segmentation_head import MaskPredictor, SegmentationHead, doubled
from samonnx.pins import UnpinnedBranchError, apply_pins
from samonnx.programs.program import Component
from samonnx.trace import trace
from samonnx.weights import fill_seeded

WIDTH, HEADS, GRID, QUERIES, LAYERS, TOKENS = 16, 4, 3, 5, 2, 6


@cache
def pinned(mask_source: str = "last_layer", prompt_cross_attention: bool = True) -> SegmentationHead:
    head = SegmentationHead(WIDTH, HEADS, GRID, no_decoder=mask_source == "no_decoder").eval().requires_grad_(False)
    fill_seeded(head)
    apply_pins(head, {"mask_source": mask_source, "prompt_cross_attention": prompt_cross_attention})
    return head


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def inputs(batch: int = 1) -> dict[str, Tensor]:
    """All but one of the prompt's tokens, in the middle, are real."""
    valid = torch.ones(batch, TOKENS, dtype=torch.bool)
    valid[:, 2] = False
    return {
        "memory": noise(batch, GRID * GRID, WIDTH),
        "high_res_0": noise(batch, WIDTH, 4 * GRID, 4 * GRID, seed=1),
        "high_res_1": noise(batch, WIDTH, 2 * GRID, 2 * GRID, seed=2),
        "queries": noise(batch, QUERIES, WIDTH, seed=3),
        "prompt": noise(batch, TOKENS, WIDTH, seed=4),
        "prompt_valid": valid,
    }


def run(head: SegmentationHead, **given_: Tensor) -> tuple[Tensor, Tensor]:
    masks, semantic_mask = head(**{**inputs(), **given_})
    return masks, semantic_mask


def relative(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


# A plain definition: PyTorch's own attention and resize, the parts written out.


def plain_pixels(head: SegmentationHead) -> Tensor:
    x, prompt, valid = inputs()["memory"], inputs()["prompt"], inputs()["prompt_valid"]
    if head.prompt_cross_attention:
        attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).eval().requires_grad_(False)
        attention.load_state_dict(head.cross_attend_prompt.state_dict())
        x = x + attention(head.cross_attn_norm(x), prompt, prompt, key_padding_mask=~valid)[0]
    x = x.transpose(1, 2).reshape(1, WIDTH, GRID, GRID)
    weights = head.pixel_decoder.state_dict()
    for index, level in enumerate((inputs()["high_res_1"], inputs()["high_res_0"])):
        x = level + F.interpolate(x, size=level.shape[-2:], mode="nearest")
        x = F.conv2d(x, weights[f"conv_layers.{index}.weight"], weights[f"conv_layers.{index}.bias"], padding=1)
        groups = x.unflatten(1, (8, -1))
        centred = groups - groups.mean((2, 3, 4), keepdim=True)
        x = (centred / (centred.square().mean((2, 3, 4), keepdim=True) + 1e-5).sqrt()).flatten(1, 2)
        scale, shift = weights[f"norms.{index}.weight"], weights[f"norms.{index}.bias"]
        x = (x * scale[:, None, None] + shift[:, None, None]).clamp(min=0)
    return x


@pytest.mark.parametrize("prompt_cross_attention", [True, False])
def test_a_mask_is_the_dot_product_of_a_querys_embedding_with_every_pixel(prompt_cross_attention: bool) -> None:
    head = pinned(prompt_cross_attention=prompt_cross_attention)
    pixels = plain_pixels(head)
    embedding = inputs()["queries"]
    assert isinstance(head.mask_predictor, MaskPredictor)
    layers = list(head.mask_predictor.mask_embed.layers)
    for layer in layers[:-1]:
        embedding = layer(embedding).clamp(min=0)
    weights = head.state_dict()
    instance = torch.einsum("oc,bchw->bohw", weights["instance_seg_head.weight"][:, :, 0, 0], pixels)
    instance = instance + weights["instance_seg_head.bias"][:, None, None]
    expected = torch.einsum("bqc,bchw->bqhw", layers[-1](embedding), instance)
    semantic = (pixels * weights["semantic_seg_head.weight"][0]).sum(1, keepdim=True)
    semantic = semantic + weights["semantic_seg_head.bias"]
    masks, semantic_mask = run(head)
    assert relative(masks, expected) < 3e-6
    assert relative(semantic_mask, semantic) < 3e-6


def test_the_encoded_image_attends_the_prompt_only_where_it_is_pinned_to() -> None:
    other = {"prompt": noise(1, TOKENS, WIDTH, seed=9)}
    for pin in (True, False):
        before, after = run(pinned(prompt_cross_attention=pin)), run(pinned(prompt_cross_attention=pin), **other)
        assert torch.equal(before[0], after[0]) is not pin
        assert torch.equal(before[1], after[1]) is not pin


def test_masks_of_all_layers_are_those_of_each_layer_one_after_the_other() -> None:
    queries = noise(LAYERS, 1, QUERIES, WIDTH, seed=5)
    masks, semantic_mask = run(pinned("all_layers"), queries=queries)
    assert masks.shape == (LAYERS, 1, QUERIES, 4 * GRID, 4 * GRID)
    for layer in range(LAYERS):
        alone, semantic = run(pinned(), queries=queries[layer])
        assert relative(masks[layer], alone) < 1e-6
        assert torch.equal(semantic_mask, semantic)


def test_a_head_without_decoder_gives_one_mask_of_the_pixels_alone() -> None:
    head = pinned("no_decoder")
    instance = head.instance_seg_head(plain_pixels(head))
    weights = head.state_dict()
    expected = F.conv2d(instance, weights["mask_predictor.weight"], weights["mask_predictor.bias"], padding=1)
    masks, _ = run(head)
    assert relative(masks, expected) < 3e-6
    assert torch.equal(run(head, queries=noise(1, QUERIES, WIDTH, seed=9))[0], masks)


def test_the_semantic_mask_does_not_depend_on_the_queries() -> None:
    (before, semantic), (after, other) = run(pinned()), run(pinned(), queries=noise(1, QUERIES, WIDTH, seed=9))
    assert torch.equal(semantic, other)
    assert not torch.equal(before, after)


def test_nothing_reads_the_third_convolution_of_the_pixel_decoder() -> None:
    head = SegmentationHead(WIDTH, HEADS, GRID).eval().requires_grad_(False)
    fill_seeded(head)
    apply_pins(head, {"mask_source": "last_layer", "prompt_cross_attention": True})
    before = run(head)
    for part in ("conv_layers.2.weight", "norms.2.weight"):
        head.pixel_decoder.get_parameter(part).fill_(torch.nan)
    after = run(head)
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])


@given(batch=st.integers(1, 2), channels=st.integers(1, 3), height=st.integers(1, 5), width=st.integers(1, 5))
def test_doubling_repeats_every_cell_twice_along_both_axes(batch: int, channels: int, height: int, width: int) -> None:
    x = noise(batch, channels, height, width)
    expected = x[:, :, torch.arange(2 * height) // 2][..., torch.arange(2 * width) // 2]
    assert torch.equal(doubled(x), expected)


def test_a_pin_that_the_heads_weights_do_not_fit_says_what_to_do() -> None:
    released = SegmentationHead(WIDTH, HEADS, GRID)
    apply_pins(released, {"mask_source": "no_decoder", "prompt_cross_attention": True})
    with pytest.raises(SamonnxError) as caught:
        run(released)
    assert str(caught.value) == (
        "segmentation head: `mask_source: no_decoder` found, but the head was built with the mask MLP of the decoder's "
        "queries; pin `mask_source: last_layer`, or build the head with no_decoder=True and give weights of such a "
        "model"
    )
    other = SegmentationHead(WIDTH, HEADS, GRID, no_decoder=True)
    apply_pins(other, {"mask_source": "all_layers", "prompt_cross_attention": True})
    with pytest.raises(SamonnxError) as caught:
        run(other)
    assert str(caught.value) == (
        "segmentation head: `mask_source: all_layers` found, but the head was built without the mask MLP of the "
        "decoder's queries; pin `mask_source: no_decoder`, or build the head with no_decoder=False and give weights of "
        "such a model"
    )


def test_queries_that_do_not_fit_the_mask_source_are_refused() -> None:
    with pytest.raises(SamonnxError) as caught:
        run(pinned("all_layers"))
    assert str(caught.value) == (
        "segmentation head: queries of shape [1, 5, 16] found, but `mask_source: all_layers` takes [layers, B, Q, D]; "
        "give those, or pin another mask_source"
    )
    with pytest.raises(SamonnxError) as caught:
        run(pinned(), queries=noise(LAYERS, 1, QUERIES, WIDTH))
    assert str(caught.value) == (
        "segmentation head: queries of shape [2, 1, 5, 16] found, but `mask_source: last_layer` takes [B, Q, D]; "
        "give those, or pin another mask_source"
    )


def test_an_unpinned_head_does_not_run() -> None:
    with pytest.raises(UnpinnedBranchError, match=r"SegmentationHead\.prompt_cross_attention"):
        run(SegmentationHead(WIDTH, HEADS, GRID))


@given(seed=st.integers(0, 2**31), size=st.sampled_from([0.0, 1.0, 1e6]))
@settings(max_examples=15, deadline=None)
def test_what_lies_in_an_invalid_prompt_token_changes_nothing(seed: int, size: float) -> None:
    prompt, valid = inputs()["prompt"], inputs()["prompt_valid"]
    other = torch.where(valid[..., None], prompt, noise(1, TOKENS, WIDTH, seed=seed) * size)
    (masks, semantic), (found, found_semantic) = run(pinned()), run(pinned(), prompt=other)
    assert torch.equal(found, masks)
    assert torch.equal(found_semantic, semantic)


@given(tokens=st.permutations(range(TOKENS)), queries=st.permutations(range(QUERIES)))
@settings(max_examples=15, deadline=None)
def test_prompt_tokens_are_a_set_and_queries_keep_their_masks(tokens: list[int], queries: list[int]) -> None:
    ports = inputs()
    masks, semantic = run(pinned())
    found, found_semantic = run(
        pinned(),
        prompt=ports["prompt"][:, tokens],
        prompt_valid=ports["prompt_valid"][:, tokens],
        queries=ports["queries"][:, queries],
    )
    assert relative(found, masks[:, queries]) < 3e-6
    assert relative(found_semantic, semantic) < 3e-6


def test_images_of_a_batch_do_not_see_one_another() -> None:
    ports = inputs(batch=3)
    ports["prompt_valid"][1, 4:] = False
    together = run(pinned(), **ports)
    for row in range(3):
        alone = run(pinned(), **{name: port[row : row + 1] for name, port in ports.items()})
        for found, expected in zip(together, alone, strict=True):
            assert relative(found[row : row + 1], expected) < 3e-6


@pytest.mark.parametrize("mask_source", ["last_layer", "all_layers", "no_decoder"])
def test_onnx_runtime_gives_the_same_masks(mask_source: str) -> None:
    head, ports = pinned(mask_source), inputs()
    if mask_source == "all_layers":
        ports["queries"] = noise(LAYERS, 1, QUERIES, WIDTH, seed=5)
    traced = trace(Component("segment", head, ports, ("masks", "semantic_mask")))
    # no_decoder: the exporter keeps an input that nothing reads, so every port is fed
    found = GraphSession(traced.model, threads=1).run({name: port.numpy() for name, port in ports.items()})
    assert not any(node.op_type == "Resize" for node in traced.model.graph)
    for name, expected in zip(("masks", "semantic_mask"), run(head, **ports), strict=True):
        assert relative(torch.from_numpy(found[name]), expected) < 3e-6
