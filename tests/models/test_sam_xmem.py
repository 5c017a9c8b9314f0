from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.errors import SamonnxError
from samonnx.models import sam, xmem
from samonnx.models.sam_geometry import original_masks
from samonnx.models.sam_xmem import args_of_shapes, build, frame_masks, xmem_of
from tests.models.sam_xmem_tiny import FRAME, prompts, tiny_sam_xmem


@given(
    low=st.sampled_from([8, 32]),
    height=st.integers(20, 150),
    width=st.integers(20, 150),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=40)
def test_a_mask_comes_into_the_frame_as_the_originals_into_the_picture(
    low: int, height: int, width: int, seed: int
) -> None:
    logits = 10 * torch.randn(2, low, low, generator=torch.Generator().manual_seed(seed))
    expected = original_masks(logits[:, None], (height, width), 4 * low)[:, 0]
    bound = 1e-6 * float(logits.abs().max())  # 16 roundings of float32: two times four taps, on either side
    torch.testing.assert_close(frame_masks(logits, (height, width), 4 * low), expected, rtol=0, atol=bound)


def test_sams_single_mask_is_taken_and_cut_at_0() -> None:
    model = tiny_sam_xmem()
    coords, labels = prompts(((40, 30, 1), (90, 60, 0)), ((20, 20, 2), (80, 70, 3)))
    with torch.inference_mode():
        features = model.sam.encode_image(torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(1)))
        found = model.find_masks(features, coords, labels, FRAME)
        no_mask = torch.zeros(2, 1, 32, 32), torch.zeros(2, dtype=torch.bool)
        single = model.sam.predict(features, coords, labels, *no_mask).of_mode(False)
    torch.testing.assert_close(found.logits, original_masks(single.logits, FRAME, 128)[:, 0], rtol=0, atol=1e-5)
    torch.testing.assert_close(found.ious, single.ious[:, 0], rtol=0, atol=1e-5)
    assert torch.equal(found.masks, (found.logits > 0).float())
    assert found.is_given.tolist() == [True, True]
    assert found.masks.any()


def test_empty_places_are_no_clicks_and_a_row_of_them_is_no_prompt() -> None:
    """The reference project pads with label 0 at (0, 0), which is a negative click there."""
    model = tiny_sam_xmem()
    with torch.inference_mode():
        features = model.sam.encode_image(torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(1)))
        found = [model.find_masks(features, *prompts(((40, 30, 1),), (), garbage=x), FRAME) for x in (0.0, 77.0)]
        zeros = model.find_masks(features, *prompts(((40, 30, 1), (0, 0, 0)), ()), FRAME)
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
    assert found[0].is_given.tolist() == [True, False]
    assert not found[0].masks[1].any()
    assert (zeros.logits[0] - found[0].logits[0]).abs().max() > 1e-3


def test_the_keys_are_those_of_both_checkpoints_below_their_parts_names() -> None:
    model = tiny_sam_xmem()
    own = {f"sam.{key}" for key in model.sam.state_dict()} | {f"xmem.{key}" for key in model.xmem.state_dict()}
    assert set(model.state_dict()) == own
    prefixes = [prefix for component in model.components.values() for prefix in component]
    assert all(any(key.startswith(prefix) for prefix in prefixes) for key in own)


def test_arguments_go_to_their_models_and_widths_come_from_xmems_part_of_a_checkpoint() -> None:
    tiny = tiny_sam_xmem()
    shapes = {key: tuple(value.shape) for key, value in tiny.state_dict().items()}
    widths = args_of_shapes(shapes)["xmem"]
    assert widths["key_dim"] == 4
    built = build({"model_type": "tiny", "image_size": 64, "hidden_dim": 32, "ffn_dim": 64}, widths)
    assert built.sam.sizes.image_size == 64
    assert built.xmem.widths == tiny.xmem.widths
    assert not built.training
    with pytest.raises(SamonnxError, match=r"model\.args\.model_type: 'b' found"):
        build({"model_type": "b"})


def test_xmem_is_found_alone_and_behind_sam() -> None:
    tiny = tiny_sam_xmem()
    assert xmem_of(tiny) is tiny.xmem
    assert xmem_of(tiny.xmem) is tiny.xmem
    assert xmem_of(tiny.sam) is None
    assert xmem.XMem.image_mean == sam.IMAGE_MEAN
