"""The law of equivalence of XMem's graphs: free-running over a clip, every frame and every bank are those of the eager
reference with its growing memory."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from samonnx.programs.xmem_ports import XMemSizes
from tests.models.xmem_memories import JUNK, assert_same_memory

from .conftest import OpenXMem
from .xmem_scenario import GIVEN, XMemRun, bank_of, clip_frame, masks_at, reference_of, reference_step, sizes_of

TOLERANCE = 1e-5


def assert_equivalent(
    run: XMemRun,
    sizes: XMemSizes,
    frames: int,
    overrides: tuple[str, ...] = (),
    clip: Mapping[int, Mapping[int, tuple[int, int, int]]] = GIVEN,
    last_frame: int = -1,
) -> tuple[int, int]:
    """How many consolidations there were, and how many of them removed elements."""
    reference, consolidations, removals = reference_of(*overrides), 0, 0
    for t in range(frames):
        image, masks = clip_frame(t, sizes), masks_at(t, sizes, clip)
        expected = reference_step(reference, image, masks, t == last_frame)
        found = run.frame(image, masks, t == last_frame)
        known = len(reference.since)
        np.testing.assert_allclose(found[: 1 + known], expected.probabilities.numpy(), atol=TOLERANCE, err_msg=f"{t}")
        assert not found[1 + known :].any(), t
        bank = bank_of(run.bank)
        np.testing.assert_allclose(bank.sensory[:known], reference.sensory, atol=TOLERANCE, err_msg=f"{t}")
        assert_same_memory(reference, bank, TOLERANCE)
        assert (int(bank.frame_count), int(bank.last_memory)) == (reference.frame_count, reference.last_memory)
        if expected.consolidation is not None:
            consolidations, removals = consolidations + 1, removals + (expected.consolidation.removed > 0)
    return consolidations, removals


@pytest.mark.parametrize("target", ["onnx", "ort-cpu"])
@pytest.mark.parametrize(
    ("specialised", "inside", "used"),
    [
        (False, False, {"track"}),
        (True, False, {"track@memory", "track@plain"}),
        (False, True, {"track_and_consolidate"}),
    ],
    ids=["track", "specialisations", "consolidation inside"],
)
def test_every_frame_and_bank_are_the_references_past_consolidations_and_removals(
    xmem_graphs: OpenXMem, target: str, specialised: bool, inside: bool, used: set[str]
) -> None:
    """An object added later, masks on later frames, junk in every empty place; 44 x 70 pixels, padded on both axes."""
    run = XMemRun(xmem_graphs(target=target), specialised, inside, junk=JUNK)
    consolidations, removals = assert_equivalent(run, sizes_of(), 40)
    assert consolidations > 15
    assert removals > 10
    assert run.used == used


def test_the_last_frame_leaves_the_memory_as_it_is(xmem_graphs: OpenXMem) -> None:
    for last in (3, 4):  # a memory frame by its number, and another
        assert_equivalent(XMemRun(xmem_graphs(), specialised=last == 3), sizes_of(), last + 1, last_frame=last)


ODD = ("programs.track={objects: 3, height: 37, width: 51}",)


def test_odd_sizes_and_three_objects_joining_one_by_one(xmem_graphs: OpenXMem) -> None:
    """37 x 51 pixels: an odd pixel of padding on both axes. The second object's first mask is empty."""
    clip = {0: {0: (6, 8, 14)}, 3: {1: (20, 30, 0)}, 8: {0: (8, 8, 12), 2: (2, 34, 7)}}
    run = XMemRun(xmem_graphs(*ODD, programs=("track", "consolidate")))
    consolidations, _ = assert_equivalent(run, sizes_of(*ODD), 20, ODD, clip)
    assert consolidations > 5


EXTREME = (
    "memory={working_frames: 2, min_working_frames: 1, long_term: 7, prototypes: 7, every: 1, top_k: 19}",
    "programs.track={objects: 1, height: 32, width: 40}",
)


def test_a_memory_that_is_replaced_at_every_consolidation_and_read_whole(xmem_graphs: OpenXMem) -> None:
    run = XMemRun(xmem_graphs(*EXTREME, programs=("track", "consolidate")))
    consolidations, removals = assert_equivalent(run, sizes_of(*EXTREME), 14, EXTREME, {0: {0: (3, 4, 14)}})
    assert consolidations == 13
    assert removals == 12
