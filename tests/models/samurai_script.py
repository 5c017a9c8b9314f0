"""SAMURAI's scripted clip, golden/sam2.1/samurai_scripted.npz: what the mask decoder gave on each of 60 frames, by the
formula of NOTES.md, and what the original's own decision code made of it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from samonnx.models.mask_decoder import DecodedMasks

__all__ = ["FRAMES", "Array", "assert_entries", "decoded", "listed", "made_by", "of_frame", "script"]

Array = np.ndarray[Any, np.dtype[Any]]

FILE = Path(__file__).parents[2] / "golden" / "sam2.1" / "samurai_scripted.npz"
FRAMES, LOW = 60, 256

SHARE_OF_LARGEST, SHARE_OF_ENTRY = 1e-4, 1e-3
TINY = 1e-6
"""Entries below this share of the largest are zero but for rounding."""


@lru_cache(maxsize=1)
def _file() -> Mapping[str, Array]:
    with np.load(FILE) as arrays:
        return dict(arrays)


def script(name: str) -> Array:
    """`script/<name>`: ellipses f32 [60, 3, 4], ious f32 [60, 3], scores f32 [60], tokens f32 [60, 3, 256]."""
    return _file()[f"script/{name}"]


def made_by(name: str) -> float:
    """`meta/<name>`, a number."""
    return float(_file()[f"meta/{name}"])


def of_frame(t: int) -> dict[str, Array]:
    """What the original had on frame `t`, by name."""
    prefix = f"frame{t:02d}/"
    return {name.removeprefix(prefix): array for name, array in _file().items() if name.startswith(prefix)}


def decoded(t: int) -> DecodedMasks:
    """The decoder's output on frame `t`. The script has the three candidates; the single mask, which no frame may take,
    is everywhere and of IoU 1."""
    x, y = np.arange(LOW, dtype=np.float32)[None], np.arange(LOW, dtype=np.float32)[:, None]
    logits = np.full((4, LOW, LOW), 10, np.float32)
    for mask, (cx, cy, rx, ry) in zip(logits[1:], script("ellipses")[t], strict=True):
        mask[:] = -10 if rx == 0 else np.clip(10 * (1 - ((x - cx) / rx) ** 2 - ((y - cy) / ry) ** 2), -10, 10)
    tokens = script("tokens")[t]
    return DecodedMasks(
        torch.from_numpy(logits[None]),
        torch.from_numpy(np.concatenate(([1], script("ious")[t])).astype(np.float32)[None]),
        torch.from_numpy(np.concatenate((np.full_like(tokens[:1], 3), tokens))[None]),
        torch.from_numpy(script("scores")[t].reshape(1, 1)),
    )


def listed(frames: Array) -> list[int]:
    """Without the padding."""
    return [int(t) for t in frames if t >= 0]


def assert_entries(found: Array, expected: Array, what: object) -> None:
    """Of one shape, finite, and within 1e-4 of the largest magnitude; entries that are not tiny within 1e-3 of
    themselves."""
    assert found.shape == expected.shape, what
    error, size = np.abs(found.astype(np.float64) - expected), np.abs(expected)
    assert error.max() <= SHARE_OF_LARGEST * size.max(), (what, error.max(), size.max())
    large = size > TINY * size.max()
    assert (error[large] <= SHARE_OF_ENTRY * size[large]).all(), (what, (error[large] / size[large]).max())
