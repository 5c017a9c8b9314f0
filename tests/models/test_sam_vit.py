"""SAM's image encoder against a plain definition: one window, one head, one query at a time, in float64."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samonnx.errors import SamonnxError
from samonnx.graph_session import GraphSession
from samonnx.models.layers import LayerNorm2d
from samonnx.models.sam_vit import PATCH, SAM_VIT_SIZES, RelativePositionAttention, SamVit, SamVitSize
from samonnx.programs.program import Component
from samonnx.trace import trace
from samonnx.weights import fill_seeded

CHANNELS = 8
# Windows that reach over the edge of 8 x 8 cells, that cover 6 x 6 without a rest, and one larger than the map.
SIZES = {
    "padded": (SamVitSize(16, 3, 2, (1,), window=3), 8),
    "fitting": (SamVitSize(16, 3, 2, (0,), window=3), 6),
    "larger": (SamVitSize(16, 2, 4, (1,), window=5), 4),
    "everywhere": (SamVitSize(16, 2, 1, (0, 1), window=3), 4),
}
PADDED, PADDED_GRID = SIZES["padded"]

each_size = pytest.mark.parametrize(("size", "grid"), SIZES.values(), ids=SIZES)


@cache
def encoder_of(size: SamVitSize, grid: int) -> SamVit:
    encoder = SamVit(size, PATCH * grid, CHANNELS).eval().requires_grad_(False)
    fill_seeded(encoder)
    return encoder


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def image_of(grid: int) -> Tensor:
    return noise(1, 3, PATCH * grid, PATCH * grid)


def relative(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found.double() - expected.double()).abs().max() / expected.double().abs().max())


# The plain definition: cells f64 [grid, grid, width].


def plain_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-6) * weight + bias


def plain_square(x: Tensor, state: dict[str, Tensor], heads: int, attended: Tensor) -> Tensor:
    """Attention among the cells [side, side, width] of a square; `attended` bool [side, side]: which keys count."""
    side, _, width = x.shape
    d = width // heads
    q, k, v = (x @ state["attn.qkv.weight"].T + state["attn.qkv.bias"]).split(width, dim=-1)
    out = torch.zeros_like(x)
    for head in range(heads):
        part = slice(head * d, (head + 1) * d)
        for row in range(side):
            for column in range(side):
                query = q[row, column, part]
                down = [query @ state["attn.rel_pos_h"][row - other + side - 1] for other in range(side)]
                right = [query @ state["attn.rel_pos_w"][column - other + side - 1] for other in range(side)]
                logits = k[..., part] @ query / math.sqrt(d) + torch.stack(down)[:, None] + torch.stack(right)[None]
                weights = torch.softmax(logits.masked_fill(~attended, -math.inf).flatten(), 0).reshape(side, side, 1)
                out[row, column, part] = (weights * v[..., part]).sum((0, 1))
    return out


def plain_attention(x: Tensor, state: dict[str, Tensor], heads: int, window: int, masked: bool) -> Tensor:
    grid = len(x)
    out = torch.zeros_like(x)
    for top in range(0, grid, window):
        for left in range(0, grid, window):
            inside = x[top : top + window, left : left + window]
            height, width = inside.shape[:2]
            square = F.pad(inside, (0, 0, 0, window - width, 0, window - height))
            real = torch.zeros(window, window, dtype=torch.bool)
            real[:height, :width] = True
            attended = plain_square(square, state, heads, real if masked else torch.ones_like(real))
            out[top : top + window, left : left + window] = attended[:height, :width]
    return out @ state["attn.proj.weight"].T + state["attn.proj.bias"]


def plain_encoder(encoder: SamVit, image: Tensor, masked: bool = False) -> Tensor:
    """`masked`: cells beyond the edge are not attended, which is not what the original does."""
    size, grid = encoder.size, encoder.grid
    state = {key: value.double() for key, value in encoder.state_dict().items()}
    patches = image[0].double().unflatten(2, (grid, PATCH)).unflatten(1, (grid, PATCH)).permute(1, 3, 0, 2, 4)
    kernel, bias = state["patch_embed.proj.weight"].flatten(1), state["patch_embed.proj.bias"]
    x = patches.flatten(2) @ kernel.T + bias + state["pos_embed"][0]
    for index in range(size.depth):
        block = {k.removeprefix(f"blocks.{index}."): v for k, v in state.items() if k.startswith(f"blocks.{index}.")}
        window = grid if index in size.global_blocks else size.window
        y = plain_norm(x, block["norm1.weight"], block["norm1.bias"])
        x = x + plain_attention(y, block, size.heads, window, masked)
        y = plain_norm(x, block["norm2.weight"], block["norm2.bias"])
        hidden = y @ block["mlp.lin1.weight"].T + block["mlp.lin1.bias"]
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
        x = x + hidden @ block["mlp.lin2.weight"].T + block["mlp.lin2.bias"]
    x = plain_norm(x @ state["neck.0.weight"].flatten(1).T, state["neck.1.weight"], state["neck.1.bias"])
    x = F.conv2d(x.permute(2, 0, 1)[None], state["neck.2.weight"], padding=1)[0].permute(1, 2, 0)
    return plain_norm(x, state["neck.3.weight"], state["neck.3.bias"]).permute(2, 0, 1)[None]


@each_size
def test_it_equals_the_plain_definition_window_by_window(size: SamVitSize, grid: int) -> None:
    encoder, image = encoder_of(size, grid), image_of(grid)
    found = encoder(image)
    assert found.shape == (1, CHANNELS, grid, grid)
    assert relative(found, plain_encoder(encoder, image)) < 3e-6


def test_cells_of_padding_take_their_share_of_attention() -> None:
    encoder, image = encoder_of(PADDED, PADDED_GRID), image_of(PADDED_GRID)
    assert relative(encoder(image), plain_encoder(encoder, image, masked=True)) > 1e-3


def test_images_of_a_batch_are_encoded_as_each_alone() -> None:
    encoder = encoder_of(PADDED, PADDED_GRID)
    images = torch.cat((image_of(PADDED_GRID), image_of(PADDED_GRID).flip(3)))
    together = encoder(images)
    for row in range(2):
        assert relative(together[row : row + 1], encoder(images[row : row + 1])) < 3e-6


def test_windowed_blocks_keep_to_their_window_and_a_global_block_does_not() -> None:
    size, grid = SIZES["fitting"]
    encoder = encoder_of(size, grid)
    cells = noise(1, grid, grid, size.width)
    changed = cells.clone()
    changed[:, 0, 0, 0] += 1  # not of all channels: norm1 would take it away
    everywhere, windowed, _ = encoder.blocks
    moved = (windowed(cells) - windowed(changed)).abs().amax((0, 3))
    assert (moved[:3, :3] > 0).all()
    assert moved[3:].max() == 0
    assert moved[:, 3:].max() == 0
    assert ((everywhere(cells) - everywhere(changed)).abs().amax((0, 3)) > 0).all()


def test_position_terms_are_products_of_the_query_as_it_is_with_the_tables_at_query_minus_key() -> None:
    attention = RelativePositionAttention(8, 2, 3)
    fill_seeded(attention)
    q = noise(1, 2, 9, 4)
    down, right = attention.position_terms(q)
    assert down.shape == right.shape == (1, 2, 9, 3)
    for row, column, other in ((0, 0, 2), (2, 1, 0), (1, 2, 1)):
        query = q[0, :, 3 * row + column]
        assert torch.allclose(down[0, :, 3 * row + column, other], query @ attention.rel_pos_h[row - other + 2])
        assert torch.allclose(right[0, :, 3 * row + column, other], query @ attention.rel_pos_w[column - other + 2])


def test_every_layer_norm_has_the_epsilon_of_the_original() -> None:
    norms = [m for m in encoder_of(PADDED, PADDED_GRID).modules() if isinstance(m, nn.LayerNorm | LayerNorm2d)]
    assert len(norms) == 2 * PADDED.depth + 2
    assert {norm.eps for norm in norms} == {1e-6}


# Graph


def test_onnx_runtime_gives_the_same_map_and_each_block_is_one_attention_with_a_mask() -> None:
    encoder, image = encoder_of(PADDED, PADDED_GRID), image_of(PADDED_GRID)
    traced = trace(Component("encoder", encoder, {"image": image}, ("features",)))
    attentions = [node for node in traced.model.graph if node.op_type == "Attention"]
    assert len(attentions) == PADDED.depth
    assert all(len(node.inputs) == 4 and node.inputs[3] is not None for node in attentions)
    found = GraphSession(traced.model, threads=1).run({"image": image.numpy()})["features"]
    assert relative(torch.from_numpy(found), encoder(image)) < 3e-6


# Sizes


def test_the_released_encoders_have_the_published_figures() -> None:
    for name, parameters in {"vit_b": 89_670_912, "vit_l": 308_278_272, "vit_h": 637_026_048}.items():
        with torch.device("meta"):
            encoder = SamVit(SAM_VIT_SIZES[name])
        assert sum(p.numel() for p in encoder.parameters()) == parameters, name
        tables = [len(encoder.get_parameter(f"blocks.{i}.attn.rel_pos_h")) for i in range(encoder.size.depth)]
        everywhere = SAM_VIT_SIZES[name].global_blocks
        assert tables == [127 if index in everywhere else 27 for index in range(encoder.size.depth)], name


@pytest.mark.parametrize("image_size", [1000, 0, -16])
def test_an_image_size_that_is_no_multiple_of_16_is_refused(image_size: int) -> None:
    with pytest.raises(SamonnxError) as caught:
        SamVit(PADDED, image_size)
    assert str(caught.value) == (
        f"model.args.image_size: {image_size} pixels found, a multiple of 16 expected (the patches of SAM's image "
        "encoder)"
    )


@pytest.mark.parametrize("shape", [(1, 3, 128, 112), (1, 3, 112, 112), (1, 1, 128, 128)])
def test_an_image_of_another_size_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(SamonnxError) as caught:
        encoder_of(PADDED, PADDED_GRID)(torch.zeros(shape))
    assert str(caught.value) == (
        f"the image is {list(shape)}; this encoder was built for [1, 3, 128, 128] (model.args.image_size)"
    )


def test_figures_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(SamonnxError, match="5 heads do not divide a width of 16"):
        SamVitSize(16, 2, 5, ())
    with pytest.raises(SamonnxError, match="block 2 cannot be global; there are blocks 0 to 1"):
        SamVitSize(16, 2, 2, (1, 2))
