"""SAM's mask decoder: its own tokens, its two modes, and what it does not have of SAM 2's."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from samonnx.models.layers import LayerNorm2d
from samonnx.models.mask_decoder import MaskDecoder
from samonnx.models.sam_mask_decoder import SamMaskDecoder, SamMasks
from samonnx.weights import fill_seeded

WIDTH, GRID = 32, 4


@cache
def decoder() -> SamMaskDecoder:
    made = SamMaskDecoder(WIDTH, 64).eval().requires_grad_(False)
    fill_seeded(made)
    return made


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


IMAGE, POSITION, DENSE = noise(1, WIDTH, GRID, GRID), noise(1, WIDTH, GRID, GRID, seed=1), noise(1, WIDTH, 1, 1, seed=2)


def test_four_masks_with_their_ious_come_for_each_prompt() -> None:
    masks = decoder()(IMAGE.expand(3, -1, -1, -1), POSITION, noise(3, 2, WIDTH), None, DENSE)
    assert masks.logits.shape == (3, 4, 4 * GRID, 4 * GRID)
    assert masks.ious.shape == (3, 4)


def test_a_mode_is_a_part_of_what_is_always_computed() -> None:
    masks = decoder()(IMAGE, POSITION, noise(1, 2, WIDTH), None, DENSE)
    several, one = masks.of_mode(multimask=True), masks.of_mode(multimask=False)
    assert isinstance(several, SamMasks)
    assert torch.equal(several.logits, masks.logits[:, 1:])
    assert torch.equal(several.ious, masks.ious[:, 1:])
    assert torch.equal(one.logits, masks.logits[:, :1])
    assert torch.equal(one.ious, masks.ious[:, :1])


def test_the_ious_are_what_the_last_layer_gives_and_not_confined_to_0_and_1() -> None:
    high = SamMaskDecoder(WIDTH, 64).eval().requires_grad_(False)
    high.load_state_dict(decoder().state_dict())
    last = high.iou_prediction_head.layers[-1]
    assert isinstance(last, nn.Linear)
    last.bias.add_(7)
    inputs = (IMAGE, POSITION, noise(1, 2, WIDTH), None, DENSE)
    assert torch.allclose(high(*inputs).ious, decoder()(*inputs).ious + 7, atol=1e-5)


def test_its_own_tokens_are_that_of_the_iou_and_those_of_four_masks_in_front_of_the_prompts() -> None:
    seen: list[Tensor] = []
    handle = decoder().transformer.register_forward_pre_hook(lambda _, given: seen.append(given[2]))
    sparse = noise(1, 2, WIDTH)
    decoder()(IMAGE, POSITION, sparse, None, DENSE)
    handle.remove()
    own = torch.cat((decoder().iou_token.weight, decoder().mask_tokens.weight))
    assert torch.equal(seen[0], torch.cat((own[None], sparse), dim=1))


def test_without_any_prompt_the_own_tokens_attend_alone() -> None:
    padded = decoder()(IMAGE, POSITION, noise(1, 3, WIDTH), torch.zeros(1, 3, dtype=torch.bool), DENSE)
    alone = decoder()(IMAGE, POSITION, torch.zeros(1, 0, WIDTH), None, DENSE)
    assert torch.allclose(padded.logits, alone.logits, atol=1e-5)
    assert torch.allclose(padded.ious, alone.ious, atol=1e-5)


def test_sam_2_adds_the_object_score_and_finer_maps_and_nothing_else() -> None:
    later = {key: value.shape for key, value in MaskDecoder(WIDTH, 64).state_dict().items()}
    own = {key: value.shape for key, value in decoder().state_dict().items()}
    added = {key.split(".")[0] for key in later.keys() - own.keys()}
    assert added == {"obj_score_token", "conv_s0", "conv_s1", "pred_obj_score_head"}
    assert own.items() <= later.items()


def test_layer_norms_have_the_epsilons_of_the_original() -> None:
    for kind, eps in ((nn.LayerNorm, 1e-5), (LayerNorm2d, 1e-6)):
        assert {module.eps for module in decoder().modules() if isinstance(module, kind)} == {eps}
