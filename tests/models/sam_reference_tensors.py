"""The original SAM's tensors, golden/sam1/sam_vit_b.npz, and its prompts as padded places."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from samonnx.models.sam import corner_places

__all__ = ["GOLDEN", "PROMPTS", "largest", "places_of", "reference"]

GOLDEN = Path(__file__).parents[2] / "golden" / "sam1"
PROMPTS = ("click", "posneg", "box", "boxclick", "maskclick")


@cache
def reference() -> dict[str, npt.NDArray[np.float32]]:
    """All arrays by name (`NOTES.md` beside the file says what they are)."""
    with np.load(GOLDEN / "sam_vit_b.npz") as file:
        return dict(file)


def largest(found: Tensor, name: str) -> float:
    """The largest deviation from a reference tensor, as a share of its largest magnitude."""
    expected = torch.from_numpy(reference()[name])
    assert found.shape == expected.shape, name
    return float((found - expected).abs().max() / expected.abs().max())


def places_of(prompt: str, garbage: float = 0.0) -> tuple[Tensor, Tensor]:
    """Two places for points and two for a box, f32 [1, 4, 2] and i32 [1, 4]; `garbage` lies in those that are empty."""
    coords, labels = torch.full((1, 2, 2), garbage), torch.full((1, 2), -1, dtype=torch.int32)
    if f"{prompt}.in_points" in reference():
        points = torch.from_numpy(reference()[f"{prompt}.in_points"]).reshape(-1, 2)
        coords[0, : len(points)] = points
        labels[0, : len(points)] = torch.from_numpy(reference()[f"{prompt}.in_labels"]).reshape(-1).to(torch.int32)
    boxed = f"{prompt}.in_box" in reference()
    box = torch.from_numpy(reference()[f"{prompt}.in_box"]).reshape(1, 4) if boxed else torch.full((1, 4), garbage)
    corners, corner_labels = corner_places(box, torch.tensor([boxed]))
    return torch.cat((coords, corners), dim=1), torch.cat((labels, corner_labels), dim=1)
