"""The eager reference: the original's schedule and sizes frame by frame, and inputs that it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from samonnx.errors import SamonnxError
from samonnx.models.xmem_bank import MemorySizes
from samonnx.models.xmem_reference import ReferenceXMem
from tests.models.xmem_clip import GOLDEN, golden_sizes
from tests.models.xmem_tiny import box, frame, tiny

SIZES = MemorySizes(working_frames=3, min_working_frames=2, long_term=30, prototypes=5, every=2, top_k=8)


@pytest.mark.parametrize("clip", ["xmem_short", "xmem_long", "xmem_drift"])
def test_memory_frames_consolidations_and_sizes_are_the_originals(clip: str) -> None:
    """They depend on no weights: a scaled-down network on the same grid has them too."""
    sizes = golden_sizes(clip)
    with np.load(GOLDEN / f"{clip}.npz") as archive:
        expected = {name: archive[name].tolist() for name in ("memory_size", "is_memory_frame", "consolidated_at")}
    tracker = ReferenceXMem(tiny(torch.float32), sizes)
    memory, flags, consolidated = [], [], []
    for t in range(len(expected["is_memory_frame"])):
        masks = {o: box(384, 384, 100, 60 + 100 * o, 80, torch.float32) for o in range(2)} if t == 0 else None
        found = tracker.step(frame(t, 384, 384, torch.float32), masks, last_frame=clip == "xmem_short" and t == 11)
        memory.append([tracker.working.size, tracker.long_term.size])
        flags.append(found.is_memory_frame)
        if found.consolidation is not None:
            consolidated.append(t)
    assert memory == expected["memory_size"]
    assert flags == [bool(x) for x in expected["is_memory_frame"]]
    assert consolidated == expected["consolidated_at"]


def tracker() -> ReferenceXMem:
    return ReferenceXMem(tiny(), SIZES)


def mask(left: int) -> Tensor:
    return box(32, 48, 4, left, 12)


def test_a_mask_is_memorised_after_aggregation_and_the_first_frame_reads_nothing() -> None:
    found = tracker().step(frame(0, 32, 48), {0: mask(4)})
    assert found.readout is None
    assert found.value is not None
    inside = found.probabilities[1][mask(4) > 0]
    assert inside.min() < 1  # the aggregated mask, not the mask
    torch.testing.assert_close(inside, torch.ones_like(inside))


def test_a_frame_on_which_every_object_has_a_mask_is_not_read_and_counts_no_usage() -> None:
    t = tracker()
    t.step(frame(0, 32, 48), {0: mask(4), 1: mask(24)})
    t.step(frame(1, 32, 48))
    before = t.working
    found = t.step(frame(2, 32, 48), {0: mask(6), 1: mask(26)})
    assert found.readout is None
    assert torch.equal(t.working.use[:6], before.use)
    found = t.step(frame(3, 32, 48), {1: mask(26)})
    assert found.readout is not None


def test_elements_first_collect_usage_on_the_frame_after_they_were_written() -> None:
    t = tracker()
    t.step(frame(0, 32, 48), {0: mask(4)})
    assert not t.working.use.any()
    assert t.working.usage.tolist() == [0.0] * 6
    t.step(frame(1, 32, 48))
    assert t.working.use.sum().item() == pytest.approx(6)
    assert t.working.life.tolist() == [1 + 1e-7] * 6


def test_the_last_frame_leaves_memory_and_sensory_state_as_they_are() -> None:
    t = tracker()
    t.step(frame(0, 32, 48), {0: mask(4)})
    t.step(frame(1, 32, 48))
    sensory = t.sensory
    found = t.step(frame(2, 32, 48), last_frame=True)
    assert not found.is_memory_frame
    assert t.sensory is sensory
    assert t.working.size == 6


# Refused


def test_a_first_frame_without_a_mask_is_refused() -> None:
    with pytest.raises(SamonnxError, match="the first frame has no mask; give one for each object to be tracked"):
        tracker().step(frame(0, 32, 48))


def test_a_mask_of_another_size_is_refused() -> None:
    wrong = r"the mask of object 1 has shape \[48, 32\], expected that of the frame, \[32, 48\]"
    with pytest.raises(SamonnxError, match=wrong):
        tracker().step(frame(0, 32, 48), {0: mask(4), 1: mask(4).T})


@pytest.mark.parametrize("objects", [(1,), (0, 2), (-1,)])
def test_objects_out_of_order_are_refused(objects: tuple[int, ...]) -> None:
    with pytest.raises(
        SamonnxError, match=r"masks are given for new objects \[.*\]; number new objects in order, here \[0"
    ):
        tracker().step(frame(0, 32, 48), {o: mask(4) for o in objects})


def test_a_refused_frame_leaves_no_trace() -> None:
    t = tracker()
    with pytest.raises(SamonnxError):
        t.step(frame(0, 32, 48), {1: mask(4)})
    assert (t.since, t.frame_count, t.working.size) == ([], 0, 0)


def test_an_empty_mask_is_an_object_that_is_nowhere() -> None:
    t = tracker()
    for index in range(6):
        found = t.step(frame(index, 32, 48), {0: mask(60), 1: mask(4)} if index == 0 else None)
        assert torch.isfinite(found.probabilities).all()
        if index == 0:
            assert found.probabilities[1].max() < 1e-6
