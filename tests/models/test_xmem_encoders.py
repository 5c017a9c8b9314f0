"""XMem's key encoder with the released widths against the original's tensors; the value encoder's stem."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from samonnx.models.xmem import XMem
from samonnx.models.xmem_encoders import KeyEncoder, KeyProjection, ValueEncoder
from samonnx.seeded import seeded_frame, seeded_tensor

GOLDEN = Path(__file__).parents[2] / "golden" / "xmem"


def seeded(module: torch.nn.Module, prefix: str) -> None:
    """Filled by formula as under the released name."""
    with torch.no_grad():
        for key, value in module.state_dict().items():
            if value.is_floating_point():
                value.copy_(torch.from_numpy(seeded_tensor(f"{prefix}.{key}", tuple(value.shape))))
    module.eval().requires_grad_(False)


def test_key_shrinkage_and_selection_are_the_originals() -> None:
    """In float64, which the notes have within 3e-6, 7e-6 and 7e-7: a machine's float32 convolutions may be that far off
    by themselves."""
    encoder, projection = KeyEncoder(64, (3, 4, 6)), KeyProjection(1024, 64)
    seeded(encoder, "key_encoder")
    seeded(projection, "key_proj")
    encoder.double()
    projection.double()
    mean, std = (torch.tensor(of_rgb)[:, None, None] for of_rgb in (XMem.image_mean, XMem.image_std))
    image = ((torch.from_numpy(seeded_frame(3, 384, 3)) - mean) / std)[None]
    found = projection(encoder(image.double())[0])
    with np.load(GOLDEN / "xmem_drift.npz") as reference:
        expected = [torch.from_numpy(reference[name][3]) for name in ("key_s4", "shrinkage", "selection_s4")]
    for x, y, step, bound in zip(found, expected, (4, 1, 4), (5e-6, 1e-5, 1e-6), strict=True):
        y = y.reshape(x[0, :, ::step, ::step].shape)
        torch.testing.assert_close(x[0, :, ::step, ::step], y.double(), rtol=0, atol=bound)


def test_the_value_encoder_sees_image_own_mask_and_the_others_in_that_order() -> None:
    encoder = ValueEncoder(2, 16, 0, (1, 1, 1))
    seeded(encoder, "value_encoder")
    weight = encoder.conv1.weight
    image, f16 = torch.randn(1, 3, 32, 32), torch.randn(1, 32, 2, 2)
    masks, others = torch.rand(2, 2, 32, 32).unbind()
    state = torch.zeros(2, 0, 2, 2)
    expected, _ = encoder(image, f16, state, masks, others)
    weight[:, [3, 4]] = weight[:, [4, 3]].clone()
    swapped, unchanged = encoder(image, f16, state, others, masks)
    torch.testing.assert_close(swapped, expected)
    assert unchanged is state
