"""vit_b against the original's tensors (`golden/sam1/NOTES.md`): each stage, each kind of prompt, both modes."""

from __future__ import annotations

import logging
from functools import cache

import pytest
import torch
from torch import Tensor

from samonnx.models.sam import IMAGE_MEAN, IMAGE_STD, Sam, build
from samonnx.models.sam_geometry import network_image, original_masks
from samonnx.models.sam_vit import SAM_VIT_SIZES, SamVit, SamVitSize
from samonnx.seeded import seeded_frame, seeded_tensor
from samonnx.weights import fill_seeded
from tests.models.sam_reference_tensors import PROMPTS, largest, places_of, reference

TOLERANCE = 1e-4
STAGES = {"block00_s8": 0, "block02_s8": 2, "block11_s8": 11}


@cache
def network_frame() -> Tensor:
    return network_image(torch.from_numpy(seeded_frame(0, 1024)), IMAGE_MEAN, IMAGE_STD, 1024)


def stages_of(encoder: SamVit, image: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """What goes into the first block and what the recorded blocks give, as far as `encoder` has them; the features."""
    found: dict[str, Tensor] = {}

    def keep(name: str, cells: Tensor) -> None:
        found[name] = cells[:, ::8, ::8]

    def kept_after(name: str) -> object:
        return lambda module, given, cells: keep(name, cells)

    first, *_ = encoder.blocks
    handles = [first.register_forward_pre_hook(lambda module, given: keep("tokens_s8", given[0]))]
    for name, index in STAGES.items():
        if index < len(encoder.blocks):
            handles.append(encoder.blocks[index].register_forward_hook(kept_after(name)))  # type: ignore[arg-type]
    with torch.inference_mode():
        features: Tensor = encoder(image)
    for handle in handles:
        handle.remove()
    return found | {"image_embedding_s4": features[..., ::4, ::4]}, features


def test_the_normalised_frame_is_the_originals() -> None:
    assert largest(network_frame()[..., ::16, ::16], "normalised_s16") < 1e-6


def test_the_first_blocks_cells_are_the_originals() -> None:
    """vit_b's image encoder, cut off after its first block."""
    full = SAM_VIT_SIZES["vit_b"]
    encoder = SamVit(SamVitSize(full.width, 1, full.heads, ())).eval().requires_grad_(False)
    for key, value in encoder.state_dict().items():
        value.copy_(torch.from_numpy(seeded_tensor(f"image_encoder.{key}", tuple(value.shape))))
    found, _ = stages_of(encoder, network_frame())
    assert largest(found["tokens_s8"], "tokens_s8") < 1e-5
    assert largest(found["block00_s8"], "block00_s8") < 1e-5


@cache
def vit_b() -> Sam:
    model = build("vit_b").requires_grad_(False)
    fill_seeded(model, components=model.components)
    return model


@pytest.mark.full_size
def test_every_stage_every_prompt_and_both_modes_are_the_originals() -> None:
    """Within 1e-4 of each reference tensor's largest magnitude."""
    errors: dict[str, float] = {}
    stages, features = stages_of(vit_b().image_encoder, network_frame())
    assert stages.keys() == {"tokens_s8", *STAGES, "image_embedding_s4"}
    errors |= {name: largest(found, name) for name, found in stages.items()}
    with torch.inference_mode():
        for prompt in PROMPTS:
            has_mask = f"{prompt}.in_mask" in reference()
            mask = torch.full((1, 1, 256, 256), 7.0)
            if has_mask:
                mask = torch.from_numpy(reference()[f"{prompt}.in_mask"]).reshape(1, 1, 256, 256)
            coords, labels = places_of(prompt, garbage=300.0)
            masks = vit_b().predict(features, coords, labels, mask, torch.tensor([has_mask]))
            for mode in ("multi", "single"):
                found = masks.of_mode(mode == "multi")
                parts = {
                    "low_res_s4": found.logits[..., ::4, ::4],
                    "low_res_crop": found.logits[..., 96:128, 64:96],
                    "iou": found.ious,
                }
                for part, tensor in parts.items():
                    name = f"{prompt}.{mode}.{part}"
                    errors[name] = largest(tensor, name)
            if prompt == "click":
                pixels = original_masks(masks.of_mode(True).logits, (600, 900), 1024)
                name = "click.multi.masks_600x900_s8"
                errors[name] = largest(pixels[..., ::8, ::8], name)
    logging.getLogger(__name__).info("%s", errors)  # shown by --log-cli-level=INFO
    assert len(errors) == 5 + 6 * len(PROMPTS) + 1
    beyond = {name: error for name, error in errors.items() if not error < TOLERANCE}
    assert not beyond, beyond
