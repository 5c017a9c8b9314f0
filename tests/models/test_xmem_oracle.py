"""Full-size XMem, eager and bounded, against the original's clips, within the tolerances that its notes derive.

`golden/xmem/NOTES.md`, "Ties": rounding decides now and then which of two nearly equal elements is the k-th best, and
from the second memory frame on a static background (short, long) is full of such elements. So a frame is judged by its
rms, and by its maximum where no swap has happened yet; the clip whose backgrounds drift has stable prototypes.

oneDNN is switched off: on a processor with AVX2 its float32 convolutions are three times as far from float64 (rms of
the key 1.5e-6) as plain ones and as the original's were (5e-7), and swaps become as much more frequent.
"""

from __future__ import annotations

import math
from functools import lru_cache

import pytest
import torch

from samonnx.models.xmem import XMem
from tests.models.xmem_clip import Figures, Probe, bounded_frames, compare, full_model, golden, reference_frames

WAYS = {"reference": reference_frames, "bounded": bounded_frames}
PROJECTIONS = {
    torch.float64: {"key": 5e-6, "shrinkage": 1e-5, "selection": 1e-6},  # the notes have 3e-6, 7e-6, 7e-7
    torch.float32: {"key": 1e-5, "shrinkage": 5e-5, "selection": 2e-6},  # and float32's own
}
LIFE = {torch.float64: 2e-7, torch.float32: 0.0}
"""A life is 1e-7 and a whole number, which float32 cannot hold."""


@lru_cache(maxsize=1)
def model(dtype: torch.dtype) -> tuple[XMem, Probe]:
    network, probe = full_model(dtype), Probe()
    probe.watch(network)
    return network, probe


def figures(way: str, clip: str, dtype: torch.dtype) -> Figures:
    """The whole clip; what holds of all three is asserted."""
    network, probe = model(dtype)
    reference, found = golden(clip), Figures()
    with torch.inference_mode(), torch.backends.mkldnn.flags(enabled=False):
        for frame in WAYS[way](network, clip, len(reference["is_memory_frame"])):
            compare(found, frame, probe, reference)
    assert not beyond(found.largest["work life"], LIFE[dtype])
    for name, bound in PROJECTIONS[dtype].items():
        assert not beyond(found.largest[name], bound), name
    return found


def beyond(of_frames: dict[int, float], bound: float, frames: range | None = None) -> dict[int, float]:
    return {t: x for t, x in of_frames.items() if x > bound and (frames is None or t in frames)}


def over_the_clip(rms: dict[int, float]) -> float:
    return math.sqrt(sum(x * x for x in rms.values()) / len(rms))


@pytest.mark.full_size
@pytest.mark.parametrize(("way", "dtype"), [("reference", torch.float64), ("bounded", torch.float32)])
def test_drift(way: str, dtype: torch.dtype) -> None:
    """Sizes, flags, and all prototypes in their order are the original's."""
    found = figures(way, "xmem_drift", dtype)
    assert not found.different
    assert not beyond(found.rms["prob"], 1e-4)
    assert not beyond(found.rms["hidden"], 3e-4)
    assert len(found.largest["usage"]) == 5
    assert not beyond(found.median["readout"], 1e-5)
    assert not beyond(found.largest["value"], 5e-4)
    assert not beyond(found.rms["work use"], 1e-2)
    assert not beyond(found.largest["prototype shrinkage"], 1e-5)
    assert not beyond(found.largest["long life"], LIFE[dtype])


@pytest.mark.full_size
@pytest.mark.parametrize(
    ("way", "clip", "dtype", "untouched"),
    [
        ("reference", "xmem_short", torch.float32, range(6)),
        ("bounded", "xmem_short", torch.float32, range(6)),
        ("bounded", "xmem_long", torch.float64, range(3)),
    ],
)
def test_short_and_long(way: str, clip: str, dtype: torch.dtype, untouched: range) -> None:
    """Close to rounding until a swap; then in the mean. Of the long clip's five consolidations float64 chooses the
    first four as the original does, so the notes; a second rounding, float32's, ends that with the first."""
    found = figures(way, clip, dtype)
    assert not [x for x in found.different if x[:2] != (22, "prototypes")]
    assert not beyond(found.largest["prob"], 1e-5, untouched)
    assert not beyond(found.largest["hidden"], 1e-5, untouched)
    assert over_the_clip(found.rms["prob"]) < 1e-4  # the notes have 3e-5 (short) and 5e-5 (long) of float64
    assert over_the_clip(found.rms["hidden"]) < 3e-4  # 1.1e-4 and 1.4e-4
    assert over_the_clip(found.rms["work use"]) < 5e-2  # 1.8e-2 and 2.3e-2
