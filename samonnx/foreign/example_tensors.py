"""Example values for the inputs of a call: seeded by the port's name, within the bounds that the recipe gives."""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

from samonnx.recipe_calls import BankSpec, TensorSpec

__all__ = ["drawn", "empty_tensor"]

_DTYPES = {"float32": torch.float32, "int32": torch.int32, "int64": torch.int64, "bool": torch.bool}


def drawn(name: str, spec: TensorSpec, draw: int = 0) -> Tensor:
    """Draw number `draw` for the port `name`: floats uniform in low…high, standard normal without bounds (maps of 64
    cells or more smooth over 8 of them, as images are); whole numbers uniform, bounds included; flags by a coin."""
    start = hashlib.sha256(f"{draw}/{name}".encode()).digest()[:7]
    generator = torch.Generator().manual_seed(int.from_bytes(start, "little"))
    low, high = spec.bounds
    if spec.dtype == "bool":
        return torch.rand(spec.shape, generator=generator) < 0.5
    if spec.dtype != "float32":
        return torch.randint(int(low), int(high) + 1, spec.shape, generator=generator, dtype=_DTYPES[spec.dtype])
    if spec.low is not None or spec.high is not None:
        return torch.rand(spec.shape, generator=generator) * (high - low) + low
    if len(spec.shape) == 4 and min(spec.shape[2:]) >= 64:
        height, width = spec.shape[2:]
        coarse = torch.randn((*spec.shape[:2], math.ceil(height / 8), math.ceil(width / 8)), generator=generator)
        return torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)
    return torch.randn(spec.shape, generator=generator)


def empty_tensor(spec: BankSpec) -> Tensor:
    """An empty bank's tensor."""
    return torch.full(spec.shape, spec.empty, dtype=_DTYPES[spec.dtype])
