"""The two-way transformer: order of its parts, the special first layer, tokens as a set."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from samonnx.models.two_way_transformer import TwoWayBlock, TwoWayTransformer
from samonnx.weights import fill_seeded


def seeded_transformer() -> TwoWayTransformer:
    transformer = TwoWayTransformer(width=16, heads=2, hidden=24).eval().requires_grad_(False)
    fill_seeded(transformer)
    return transformer


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def into(module: nn.Module, block: nn.Module, *inputs: Tensor | None) -> Tensor:
    """What `module` is given while `block` runs."""
    seen: list[Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    block(*inputs)
    handle.remove()
    (tensor,) = seen
    return tensor


def block_of(index: int) -> TwoWayBlock:
    block = seeded_transformer().layers[index]
    assert isinstance(block, TwoWayBlock)
    return block


INPUTS = (noise(2, 5, 16), noise(2, 9, 16, seed=1), noise(2, 5, 16, seed=2), noise(1, 9, 16, seed=3))


def test_the_first_self_attention_has_neither_position_nor_residual() -> None:
    block, (tokens, image, position, image_position) = block_of(0), INPUTS
    found = into(block.norm1, block, tokens, image, position, image_position, None)
    assert torch.equal(found, block.self_attn(tokens, tokens, tokens))


def test_later_self_attentions_have_both() -> None:
    block, (tokens, image, position, image_position) = block_of(1), INPUTS
    found = into(block.norm1, block, tokens, image, position, image_position, None)
    q = tokens + position
    assert torch.equal(found, tokens + block.self_attn(q, q, tokens))


@pytest.mark.parametrize("index", [0, 1])
def test_positions_enter_queries_and_keys_of_cross_attention_and_never_values(index: int) -> None:
    block, (tokens, image, position, image_position) = block_of(index), INPUTS
    after_self = block.norm1(into(block.norm1, block, tokens, image, position, image_position, None))
    key = image + image_position
    attended = after_self + block.cross_attn_token_to_image(after_self + position, key, image)
    assert torch.equal(into(block.norm2, block, tokens, image, position, image_position, None), attended)
    updated, updated_image = block(tokens, image, position, image_position, None)
    mixed = block.norm2(attended)
    assert torch.equal(updated, block.norm3(mixed + block.mlp(mixed)))
    back = block.cross_attn_image_to_token(key, updated + position, updated)
    assert torch.equal(updated_image, block.norm4(image + back))


def test_the_last_token_to_image_attention_uses_the_tokens_as_they_came_as_position() -> None:
    transformer, (tokens, image, _, image_position) = seeded_transformer(), INPUTS
    x, y = tokens, image
    for layer in transformer.layers:
        x, y = layer(x, y, tokens, image_position, None)
    last = x + transformer.final_attn_token_to_image(x + tokens, y + image_position, y)
    found, found_image = transformer(image, image_position, tokens, None)
    assert torch.equal(found, transformer.norm_final_attn(last))
    assert torch.equal(found_image, y)


@given(order=st.permutations(range(5)))
@settings(max_examples=20, deadline=None)
def test_tokens_are_a_set(order: list[int]) -> None:
    transformer, (tokens, image, _, image_position) = seeded_transformer(), INPUTS
    found, found_image = transformer(image, image_position, tokens, None)
    permuted, permuted_image = transformer(image, image_position, tokens[:, order], None)
    assert torch.allclose(permuted, found[:, order], atol=1e-5)
    assert torch.allclose(permuted_image, found_image, atol=1e-5)


@given(valid=st.lists(st.booleans(), min_size=4, max_size=4), fill=st.sampled_from([0.0, 100.0, -3.0]))
@settings(max_examples=20, deadline=None)
def test_masked_tokens_are_attended_by_nobody(valid: list[bool], fill: float) -> None:
    transformer, (tokens, image, _, image_position) = seeded_transformer(), INPUTS
    keep = torch.tensor([True, *valid])
    filled = torch.where(keep[None, :, None], tokens, fill)
    mask = keep.expand(2, 1, 1, -1)
    found, found_image = transformer(image, image_position, filled, mask)
    expected, expected_image = transformer(image, image_position, tokens[:, keep], None)
    assert torch.allclose(found[:, keep], expected, atol=1e-5)
    assert torch.allclose(found_image, expected_image, atol=1e-5)


def test_numbered_layers_of_the_mlp_are_the_same_network_under_the_names_of_sam_2() -> None:
    numbered = TwoWayTransformer(width=16, heads=2, hidden=24, numbered_mlp=True).eval()
    state = seeded_transformer().state_dict()
    renamed = {key.replace("lin1", "layers.0").replace("lin2", "layers.1"): value for key, value in state.items()}
    assert renamed.keys() != state.keys()
    numbered.load_state_dict(renamed)
    tokens, image, _, position = INPUTS
    with torch.inference_mode():
        found, expected = (model(image, position, tokens, None) for model in (numbered, seeded_transformer()))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("masked", [False, True])
def test_one_image_for_all_objects_is_as_the_same_image_for_each_and_is_projected_once(masked: bool) -> None:
    transformer = seeded_transformer()
    tokens, image, position = noise(3, 5, 16), noise(1, 9, 16, seed=1), noise(1, 9, 16, seed=2)
    mask = (torch.arange(5) < torch.tensor([[5], [2], [3]]))[:, None, None] if masked else None
    expected = transformer(image.expand(3, -1, -1), position, tokens, mask)
    found = transformer(image, position, tokens, mask, one_image=True)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-6)
    first = block_of(0)
    projections = (
        first.cross_attn_token_to_image.k_proj,
        first.cross_attn_token_to_image.v_proj,
        first.cross_attn_image_to_token.q_proj,
    )
    for projection in projections:
        given_ = (tokens, image, tokens, position, mask)
        assert into(projection, lambda *inputs: first(*inputs, one_image=True), *given_).shape == (1, 9, 16)  # type: ignore[arg-type]
