"""XMem's bounded step against the eager reference, over tiny networks: the laws of the bank."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache, partial

import pytest
import torch
from torch import Tensor

from samonnx.errors import SamonnxError
from samonnx.models.xmem_bank import MemorySizes, XMemBank, empty_bank, memory_due, working_is_full
from samonnx.models.xmem_consolidation import consolidate
from samonnx.models.xmem_masks import padded_size
from samonnx.models.xmem_reading import read_memory
from samonnx.models.xmem_reference import ReferenceXMem
from samonnx.models.xmem_step import XMemFrame, XMemStep
from tests.models.xmem_memories import JUNK, assert_same_memory, filled_with
from tests.models.xmem_tiny import box, frame, tiny

SIZES = MemorySizes(working_frames=3, min_working_frames=2, long_term=16, prototypes=5, every=2, top_k=8)
Masks = Mapping[int, tuple[int, int, int]]
"""Object → top, left and side of a box."""

ONE: Mapping[int, Masks] = {0: {0: (6, 8, 14)}}
LATER: Mapping[int, Masks] = {
    0: {0: (6, 8, 14)},
    5: {1: (20, 30, 9)},
    8: {0: (10, 12, 14)},
    9: {0: (8, 8, 12), 1: (22, 28, 9), 2: (2, 34, 7)},
}
"""Object 0 from frame 0 on, 1 from frame 5, 2 from frame 9, where all three are given; 0 is corrected on frame 8."""


class Bounded:
    """Frames of one clip through `XMemStep`, flags by `memory_due`, consolidation by `working_is_full`."""

    def __init__(
        self,
        objects: int,
        height: int,
        width: int,
        sizes: MemorySizes = SIZES,
        junk: float = 0.0,
        together: bool = False,
        consolidates: bool = False,
        sensory: int = 3,
    ) -> None:
        self.size = height, width
        self.step = XMemStep(tiny(sensory=sensory), sizes, together, consolidates)
        grid = padded_size(height) // 16, padded_size(width) // 16
        empty = empty_bank(sizes, self.step.model.widths, objects, *grid, torch.float64)
        self.bank = filled_with(empty, junk)
        self.objects = objects
        self.junk = junk
        self.consolidations = 0

    def inputs(self, t: int, masks: Masks, last_frame: bool = False) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        rows = torch.full((self.objects, *self.size), self.junk, dtype=torch.float64)
        for o, place in masks.items():
            rows[o] = box(*self.size, *place)
        given = torch.tensor([o in masks for o in range(self.objects)])
        last = torch.tensor(last_frame)
        due = memory_due(self.bank, self.step.sizes.every, given, last)
        return frame(t, *self.size)[None], rows, given, due, last

    def frame(self, t: int, masks: Masks, last_frame: bool = False) -> Tensor:
        """Probabilities [1 + O, H, W]."""
        found: XMemFrame = self.step(*self.inputs(t, masks, last_frame), self.bank)
        self.bank = found.bank
        if not self.step.consolidates and bool(working_is_full(self.bank)):
            self.bank = consolidate(self.bank, self.step.sizes)
            self.consolidations += 1
        return found.probabilities


def assert_equivalent(bounded: Bounded, clip: Mapping[int, Masks], frames: int, last_frame: int = -1) -> None:
    reference = ReferenceXMem(bounded.step.model, bounded.step.sizes)
    for t in range(frames):
        masks = {o: box(*bounded.size, *place) for o, place in clip.get(t, {}).items()}
        expected = reference.step(frame(t, *bounded.size), masks, last_frame=t == last_frame)
        found = bounded.frame(t, clip.get(t, {}), last_frame=t == last_frame)
        known = len(reference.since)
        message = partial("frame {}: {}".format, t)
        torch.testing.assert_close(found[: 1 + known], expected.probabilities, msg=message)
        assert not found[1 + known :].any()
        torch.testing.assert_close(bounded.bank.sensory[:known], reference.sensory)
        assert not bounded.bank.sensory[known:].any()
        assert_same_memory(reference, bounded.bank)
        counters = bounded.bank.frame_count, bounded.bank.last_memory
        assert tuple(int(x) for x in counters) == (reference.frame_count, reference.last_memory)
        assert all(torch.isfinite(x).all() for x in bounded.bank)


# Equivalence


@pytest.mark.parametrize("clip", [ONE, LATER], ids=["one object", "objects added later, masks on later frames"])
def test_every_frame_and_every_bank_is_the_references_past_consolidations_and_removals(
    clip: Mapping[int, Masks],
) -> None:
    """40 x 56 pixels, padded on both axes; a row without an object; junk in every empty place."""
    bounded = Bounded(4 if clip is LATER else 2, 40, 56, junk=JUNK)
    assert_equivalent(bounded, clip, 24)
    assert bounded.consolidations > 8


@pytest.mark.parametrize(
    "sizes",
    [
        MemorySizes(2, 1, long_term=7, prototypes=7, every=1, top_k=100),
        MemorySizes(5, 2, long_term=100, prototypes=60, every=1, top_k=1),
    ],
    ids=["all long-term elements replaced, k above the number of elements", "more prototypes than candidates"],
)
def test_extreme_sizes_are_the_references_too(sizes: MemorySizes) -> None:
    assert_equivalent(Bounded(2, 32, 48, sizes), {0: ONE[0], 3: LATER[5]}, 14)


def test_the_last_frame_is_the_references() -> None:
    assert_equivalent(Bounded(2, 32, 48), ONE, 5, last_frame=4)


def test_without_sensory_memory_it_is_the_references() -> None:
    assert_equivalent(Bounded(2, 32, 32, sensory=0), ONE, 5)


def test_consolidation_inside_the_step_is_the_same() -> None:
    assert_equivalent(Bounded(2, 32, 48, consolidates=True), ONE, 9)


def test_one_affinity_for_all_objects_is_the_same_where_they_joined_together() -> None:
    assert_equivalent(Bounded(3, 32, 48, together=True), {0: {0: (2, 3, 9), 1: (16, 20, 12)}}, 9)


# Padding


@lru_cache(maxsize=1)
def probabilities_of_later() -> tuple[Tensor, ...]:
    bounded = Bounded(3, 40, 56)
    return tuple(bounded.frame(t, LATER.get(t, {})) for t in range(12))


def test_what_empty_places_hold_changes_no_bit() -> None:
    for junk in (JUNK, -1e30):
        bounded = Bounded(3, 40, 56, junk=junk)
        for t, expected in enumerate(probabilities_of_later()):
            assert torch.equal(bounded.frame(t, LATER.get(t, {})), expected), (junk, t)


def test_rows_without_an_object_and_a_larger_capacity_change_nothing() -> None:
    bounded = Bounded(5, 40, 56)
    for t, expected in enumerate(probabilities_of_later()):
        found = bounded.frame(t, LATER.get(t, {}))
        torch.testing.assert_close(found[:4], expected)
        assert not found[4:].any()


# Objects


def decoded(bounded: Bounded, bank: XMemBank) -> Tensor:
    """Logits [O, 32, 48] of frame 1."""
    model = bounded.step.model
    features = model.encode_key(bounded.inputs(1, {})[0])
    reading = read_memory(bank, features.key, features.selection, SIZES.top_k)
    return model.decode(features, reading.readout, bank.sensory)[0]


def test_an_object_is_read_and_decoded_alone_as_together() -> None:
    """Values are encoded with the others' masks, and aggregation couples; everything before it is apart."""
    both = Bounded(2, 32, 48)
    both.frame(0, {0: (2, 3, 9), 1: (16, 20, 12)})
    bank = both.bank
    alone = Bounded(1, 32, 48)
    for o in range(2):
        rows = {"working_value": 0, "long_value": 0, "sensory": 0, "object_since": 0}
        alone.bank = bank._replace(**{name: getattr(bank, name)[o : o + 1] for name in rows})
        torch.testing.assert_close(decoded(both, bank)[o : o + 1], decoded(alone, alone.bank))


# Statelessness


def test_the_same_bank_gives_the_same_frame_in_any_order_of_calls() -> None:
    bounded = Bounded(3, 40, 56)
    banks: list[XMemBank] = []
    for t in range(8):
        banks.append(XMemBank(*(x.clone() for x in bounded.bank)))
        bounded.frame(t, LATER.get(t, {}))
    for t in (5, 2, 7, 0):
        bounded.bank = banks[t]
        kept = [x.clone() for x in bounded.bank]
        assert torch.equal(bounded.frame(t, LATER.get(t, {})), probabilities_of_later()[t])
        assert all(torch.equal(a, b) for a, b in zip(banks[t], kept, strict=True))


# What the original cannot do


def test_frames_before_the_first_mask_are_background_and_not_memorised() -> None:
    bounded = Bounded(2, 32, 48)
    for t in range(7):
        found = bounded.frame(t, {})
        assert torch.equal(found[0], torch.ones_like(found[0]))
        assert not found[1:].any()
    assert bounded.bank.working_frame.tolist() == [-1] * 3
    bounded.frame(7, {1: (4, 4, 9)})
    assert bounded.bank.working_frame.tolist() == [7, -1, -1]
    assert bounded.bank.object_since.tolist() == [-1, 7]


def test_an_object_with_a_mask_on_a_frame_that_is_not_memorised_reads_zeros() -> None:
    bounded = Bounded(2, 32, 48)
    bounded.frame(0, {0: (2, 3, 9)})
    bounded.frame(1, {1: (16, 20, 12)}, last_frame=True)
    assert torch.isfinite(bounded.frame(2, {})).all()


# Refused


@pytest.mark.parametrize(
    ("height", "width", "rows", "message"),
    [
        (32, 48, 3, r"masks of 3 objects \(is_given: 3\) found, but the bank holds 2; fill up with rows"),
        (32, 47, 2, r"masks of \[32, 47\] pixels found, expected those of the frame, \[32, 48\]"),
    ],
)
def test_masks_that_do_not_fit_are_refused(height: int, width: int, rows: int, message: str) -> None:
    bounded = Bounded(2, 32, 48)
    image, _, _, due, last = bounded.inputs(0, ONE[0])
    with pytest.raises(SamonnxError, match=message):
        bounded.step(image, torch.zeros(rows, height, width), torch.tensor([True] * rows), due, last, bounded.bank)


def test_a_bank_for_frames_of_another_size_is_refused() -> None:
    inputs, bank = Bounded(2, 32, 48).inputs(0, ONE[0]), Bounded(2, 48, 48).bank
    wrong = r"the bank is for a grid of \[3, 3\], but a frame of \[32, 48\] pixels has \[2, 3\]; a clip keeps its size"
    with pytest.raises(SamonnxError, match=wrong):
        Bounded(2, 32, 48).step(*inputs, bank)


# Tracing


def test_step_and_consolidation_trace_without_a_branch() -> None:
    """Traced on an empty bank, run on a full one."""
    bounded = Bounded(2, 40, 56)
    step = torch.export.export(bounded.step, (*bounded.inputs(0, ONE[0]), bounded.bank)).module()

    class Consolidation(torch.nn.Module):
        def forward(self, bank: XMemBank) -> XMemBank:
            return consolidate(bank, SIZES)

    consolidation = torch.export.export(Consolidation(), (bounded.bank,)).module()
    traced = XMemBank(*bounded.bank)
    for t in range(9):
        found = step(*bounded.inputs(t, LATER.get(t, {}) if t < 6 else {}), traced)
        traced = consolidation(found[1]) if bool(working_is_full(found[1])) else found[1]
        assert torch.equal(found[0], bounded.frame(t, LATER.get(t, {}) if t < 6 else {})), t
    assert bounded.consolidations == 3
    assert all(torch.equal(a, b) for a, b in zip(traced, bounded.bank, strict=True))
