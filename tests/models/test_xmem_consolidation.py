"""Consolidation by hand: who survives, who becomes a prototype, and where the original stops."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from samonnx.models.xmem_bank import MemorySizes, XMemBank, empty_bank
from samonnx.models.xmem_consolidation import candidates, choose_prototypes, consolidate, survivors
from tests.models.xmem_memories import WIDTHS, Memories, scalar

SIZES = MemorySizes(working_frames=4, min_working_frames=2, long_term=20, prototypes=5, every=1, top_k=6)


def run(sizes: MemorySizes, frames: int, objects: int = 1) -> Memories:
    memories = Memories(sizes, objects)
    for t in range(frames):
        memories.frame(t, objects, True)
    return memories


def same(a: XMemBank, b: XMemBank) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_a_bank_that_is_not_full_comes_out_bit_for_bit() -> None:
    for frames in range(4):
        bank = run(SIZES, frames).bank
        assert same(consolidate(bank, SIZES), bank)
    again = run(SIZES, 4).bank
    assert same(consolidate(again, SIZES), again)


def test_the_first_and_the_latest_frames_stay_and_the_prototypes_follow() -> None:
    memories = run(SIZES, 4)
    assert sorted(memories.bank.working_frame.tolist()) == [-1, -1, 0, 3]
    assert memories.bank.long_count == 5
    assert set(memories.bank.long_frame[:5].tolist()) <= {1, 2}
    memories.frame(4, 1, True)
    memories.frame(5, 1, True)
    assert memories.bank.long_count == 10


def test_the_fixed_shapes_and_types_stay() -> None:
    bank = run(SIZES, 3).bank
    for before, after in zip(bank, consolidate(bank, SIZES), strict=True):
        assert (before.shape, before.dtype) == (after.shape, after.dtype)


def long_term(usage: list[float], sizes: MemorySizes) -> XMemBank:
    count = len(usage)
    bank = empty_bank(sizes, WIDTHS, 1, 1, 1, torch.float64)
    use, life = torch.full_like(bank.long_use, 99.0), torch.zeros_like(bank.long_use)
    use[:count], life[:count] = torch.tensor(usage, dtype=torch.float64) * 4, 4.0
    return bank._replace(long_use=use, long_life=life, long_count=scalar(count))


@pytest.mark.parametrize(
    ("usage", "stay"),
    [
        ([0.0, 3.0, 0.0, 0.0, 1.0, 0.0], [1, 4]),  # ties at the threshold all go
        ([5.0, 3.0, 4.0, 2.0, 1.0, 6.0], [0, 1, 2, 3, 5]),
        ([5.0, 3.0, 4.0, 2.0, 1.0], [0, 1, 2, 3, 4]),  # exactly as many as may stay: the original stops here
        ([5.0, 0.0], [0, 1]),
        ([], []),
    ],
)
def test_survivors_are_strictly_above_the_threshold_and_only_where_room_is_needed(
    usage: list[float], stay: list[int]
) -> None:
    sizes = MemorySizes(2, 1, long_term=8, prototypes=3)
    assert survivors(long_term(usage, sizes), sizes).nonzero().flatten().tolist() == stay


def with_usage(usage: list[float]) -> XMemBank:
    """A full bank of 1 x 2 cells whose two candidate frames, 1 and 2, have these usages; slots out of order."""
    sizes = SIZES
    bank = empty_bank(sizes, WIDTHS, 2, 1, 2, torch.float64)
    generator = torch.Generator().manual_seed(0)
    bank = bank._replace(
        working_frame=torch.tensor([2, 0, 3, 1], dtype=torch.int32),
        working_key=torch.randn(bank.working_key.shape, generator=generator, dtype=torch.float64),
        working_selection=torch.rand(bank.working_key.shape, generator=generator, dtype=torch.float64),
        working_value=torch.randn(bank.working_value.shape, generator=generator, dtype=torch.float64),
        working_shrinkage=1 + torch.rand(4, 2, generator=generator, dtype=torch.float64),
        working_life=torch.full((4, 2), 2.0, dtype=torch.float64),
        object_since=torch.tensor([0, 2], dtype=torch.int32),
    )
    use = torch.full((4, 2), 99.0, dtype=torch.float64)
    use[3], use[0] = torch.tensor(usage[:2]) * 2, torch.tensor(usage[2:]) * 2
    return bank._replace(working_use=use)


def test_candidates_come_in_the_order_of_their_frames() -> None:
    found = candidates(with_usage([0.1, 0.2, 0.3, 0.4]), SIZES)
    assert found.slots.tolist() == [3, 0]
    assert found.frame.tolist() == [1, 1, 2, 2]
    torch.testing.assert_close(found.usage, torch.tensor([0.1, 0.2, 0.3, 0.4]).double())


@pytest.mark.parametrize(
    ("usage", "index"),
    [([0.1, 0.4, 0.2, 0.3], [1, 3, 2]), ([0.0, 0.5, 0.5, 0.0], [1, 2, 0]), ([0.0, 0.0, 0.0, 0.0], [0, 1, 2])],
)
def test_prototypes_are_the_most_used_and_of_equal_ones_the_older(usage: list[float], index: list[int]) -> None:
    found = candidates(with_usage(usage), SIZES)
    assert choose_prototypes(found, torch.zeros(2, dtype=torch.int32), 3).chosen.tolist() == index


def test_there_are_never_more_prototypes_than_candidates() -> None:
    assert choose_prototypes(candidates(with_usage([0.0] * 4), SIZES), scalar(0)[None], 9).chosen.shape == (4,)
    assert consolidate(with_usage([0.0] * 4), SIZES).long_count == 4


def test_values_are_means_over_the_candidates_that_the_object_has() -> None:
    """Object 1 joined on frame 2: the two candidates of frame 1 have no value of it."""
    bank = with_usage([0.1, 0.2, 0.3, 0.4])
    found = candidates(bank, SIZES)
    new = choose_prototypes(found, bank.object_since, 4)

    def weights(prototype: Tensor, there: Tensor) -> Tensor:
        difference = found.key[there] - found.key[prototype]
        distance = (found.selection[prototype] * difference.square()).sum(1)
        return (-found.shrinkage[there] * distance / 2).softmax(0)  # the root of 4 channels

    everything, later = torch.arange(4), torch.tensor([2, 3])
    for place, prototype in enumerate(new.chosen):
        weight = weights(prototype, everything)
        torch.testing.assert_close(new.value[0, place], weight @ found.value[0])
        torch.testing.assert_close(new.shrinkage[place], weight @ found.shrinkage)
        assert torch.equal(new.key[place], found.key[prototype])
        torch.testing.assert_close(new.value[1, place], weights(prototype, later) @ found.value[1, later])


def test_one_frame_may_be_all_that_stays() -> None:
    """min_working_frames 1, at which the original fails."""
    memories = run(MemorySizes(3, 1, long_term=12, prototypes=4, every=1, top_k=6), 12, objects=2)
    assert memories.consolidations > 3
    assert memories.removals > 0
    assert sorted(memories.bank.working_frame.tolist())[:2] == [-1, 0]
