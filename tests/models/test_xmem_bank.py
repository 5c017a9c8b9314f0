"""XMem's bounded bank against the eager reference's growing memory, and what keeps it bounded."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.errors import SamonnxError
from samonnx.models.xmem_bank import MemorySizes, XMemBank, empty_bank, memory_due, working_is_full, write_memory
from samonnx.models.xmem_reading import count_usage, read_memory
from tests.models.xmem_memories import WIDTHS, Memories, random_features, random_value, scalar, working_elements

YES, NO = torch.tensor(True), torch.tensor(False)
SMALL = MemorySizes(working_frames=4, min_working_frames=2, long_term=20, prototypes=5, every=1, top_k=6)


@st.composite
def sizes(draw: st.DrawFn) -> MemorySizes:
    working = draw(st.integers(2, 5))
    prototypes = draw(st.integers(1, 7))
    return MemorySizes(
        working_frames=working,
        min_working_frames=draw(st.integers(1, working - 1)),
        long_term=prototypes + draw(st.integers(0, 15)),
        prototypes=prototypes,
        every=1,
        top_k=draw(st.sampled_from([1, 3, 8, 100])),
    )


# The law of equivalence


@given(
    sizes=sizes(),
    grid=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    joins=st.lists(st.integers(0, 12), max_size=2),
    every=st.integers(1, 3),
)
@settings(max_examples=25, deadline=None)
def test_the_bounded_memory_is_the_growing_one_at_every_frame(
    sizes: MemorySizes, grid: tuple[int, int], joins: list[int], every: int
) -> None:
    """Readouts, elements, counters and their order; objects that join on later frames; junk in every empty place."""
    memories = Memories(sizes, 4, *grid)
    for t in range(24):
        joined = 1 + sum(t >= join for join in joins)
        memories.frame(t, joined, t % every == 0 or t in joins)


def test_it_is_past_consolidations_removals_and_the_size_at_which_the_original_stops() -> None:
    memories = Memories(SMALL, objects=2)
    for t in range(40):
        memories.frame(t, 1 + (t >= 7), True)
    assert (memories.consolidations, memories.removals, memories.at_capacity) == (19, 15, 1)
    assert int(memories.bank.long_count) <= SMALL.long_term


def test_nothing_drifts_over_many_frames() -> None:
    memories = Memories(SMALL, height=1)
    for t in range(300):
        memories.frame(t, 1, t % 2 == 0)
    assert memories.consolidations > 70
    assert [x.shape for x in memories.bank] == [x.shape for x in empty_bank(SMALL, WIDTHS, 1, 1, 2)]


def test_one_affinity_for_all_objects_is_the_same_where_they_joined_together() -> None:
    memories = Memories(SMALL, objects=3, together=True)
    for t in range(16):
        memories.frame(t, 3, t % 2 == 0)
    assert memories.consolidations == 3


# What stays


def test_the_first_frames_slot_is_kept_for_ever() -> None:
    memories = Memories(SMALL)
    memories.frame(0, 1, True)
    first = working_elements(memories.bank).only(slice(0, 4))
    for t in range(1, 30):
        memories.frame(t, 1, True)
        now = working_elements(memories.bank).only(slice(0, 4))
        assert now.frame.tolist() == [0] * 4
        assert torch.equal(now.key, first.key)
        assert torch.equal(now.value, first.value)


def test_without_consolidation_the_oldest_slot_but_the_first_gives_way() -> None:
    bank = empty_bank(SMALL, WIDTHS, 1, 2, 2, torch.float64)
    for t in range(9):
        value = random_value(t, 1, 2, 2)
        bank = write_memory(bank._replace(frame_count=scalar(t)), random_features(t, 2, 2), value, YES)
        assert bool(working_is_full(bank)) == (t >= 3)
    assert sorted(bank.working_frame.tolist()) == [0, 6, 7, 8]


def filled(frames: int = 3) -> XMemBank:
    memories = Memories(SMALL, objects=2)
    for t in range(frames):
        memories.frame(t, 2, True)
    return memories.bank


def test_nothing_is_written_or_counted_unless_it_is_said() -> None:
    bank = filled()
    features = random_features(3, 2, 2)
    reading = read_memory(bank, features.key, features.selection, 6)
    for same in (
        count_usage(bank, reading, NO),
        write_memory(bank, features, random_value(3, 2, 2, 2), NO),
    ):
        assert all(torch.equal(a, b) for a, b in zip(same, bank, strict=True))


def test_weights_of_every_position_are_counted_once() -> None:
    bank = filled()
    features = random_features(3, 2, 2)
    reading = read_memory(bank, features.key, features.selection, 6)
    assert reading.working_usage.sum().item() == pytest.approx(4)
    counted = count_usage(bank, reading, YES)
    torch.testing.assert_close((counted.working_use - bank.working_use).sum(), torch.tensor(4.0, dtype=torch.float64))
    lived = (counted.working_life - bank.working_life)[bank.working_frame >= 0]
    torch.testing.assert_close(lived, torch.ones_like(lived))


def test_slots_may_change_places() -> None:
    bank, order = filled(), torch.tensor([2, 0, 3, 1])
    moved = bank._replace(
        **{
            name: x.index_select(1 if name == "working_value" else 0, order)
            for name, x in zip(bank._fields, bank, strict=True)
            if name.startswith("working_")
        }
    )
    features = random_features(3, 2, 2)
    a, b = (read_memory(x, features.key, features.selection, 6) for x in (bank, moved))
    torch.testing.assert_close(a.readout, b.readout)
    torch.testing.assert_close(a.working_usage[order], b.working_usage)


def test_the_same_bank_reads_the_same() -> None:
    bank, features = filled(), random_features(9, 2, 2)
    readings = [read_memory(bank, features.key, features.selection, 6) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*readings, strict=True))


@pytest.mark.parametrize("together", [False, True])
def test_an_empty_bank_reads_zeros(together: bool) -> None:
    bank = empty_bank(SMALL, WIDTHS, 2, 2, 3)
    features = random_features(0, 2, 3)
    reading = read_memory(bank, features.key.float(), features.selection.float(), 30, together)
    assert reading.readout.shape == (2, WIDTHS.value, 2, 3)
    assert not any(x.any() for x in reading)


# When


@pytest.mark.parametrize(
    ("count", "last", "given_", "is_last", "due"),
    [
        (5, 0, False, False, True),
        (4, 0, False, False, False),
        (9, 5, False, False, False),
        (10, 5, False, False, True),
        (11, 5, False, False, True),
        (6, 5, True, False, True),
        (10, 5, True, True, False),
    ],
)
def test_a_memory_frame_is_due_after_so_many_frames_or_with_a_mask_but_not_at_the_end(
    count: int, last: int, given_: bool, is_last: bool, due: bool
) -> None:
    bank = empty_bank(SMALL, WIDTHS, 2, 1, 1)._replace(frame_count=scalar(count), last_memory=scalar(last))
    assert bool(memory_due(bank, 5, torch.tensor([False, given_]), torch.tensor(is_last))) == due


# Sizes and types


def test_the_tensors_of_the_bank() -> None:
    bank = empty_bank(MemorySizes(), WIDTHS, 3, 4, 5)
    shapes = {name: (str(x.dtype).removeprefix("torch."), *x.shape) for name, x in bank._asdict().items()}
    assert shapes == {
        "working_key": ("float32", 10, 20, 4),
        "working_shrinkage": ("float32", 10, 20),
        "working_selection": ("float32", 10, 20, 4),
        "working_value": ("float32", 3, 10, 20, 16),
        "working_use": ("float32", 10, 20),
        "working_life": ("float32", 10, 20),
        "working_frame": ("int32", 10),
        "long_key": ("float32", 10000, 4),
        "long_shrinkage": ("float32", 10000),
        "long_value": ("float32", 3, 10000, 16),
        "long_use": ("float32", 10000),
        "long_life": ("float32", 10000),
        "long_frame": ("int32", 10000),
        "long_count": ("int32",),
        "sensory": ("float32", 3, 3, 4, 5),
        "object_since": ("int32", 3),
        "frame_count": ("int32",),
        "last_memory": ("int32",),
    }


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"top_k": 0}, r"memory: top_k 0 \(at least 1 expected\)"),
        ({"every": 0, "prototypes": -1}, r"prototypes -1 \(at least 1 expected\); every 0 \(at least 1 expected\)"),
        ({"min_working_frames": 10}, r"working_frames 10 with min_working_frames 10 \(more expected: a consolidation"),
        ({"long_term": 100}, r"long_term 100 with prototypes 128 \(at least as many expected"),
    ],
)
def test_sizes_that_cannot_be_are_refused_with_all_that_is_wrong(changed: dict[str, int], message: str) -> None:
    with pytest.raises(SamonnxError, match=message):
        MemorySizes(**changed)


def test_sizes_are_values_and_by_default_the_originals() -> None:
    assert MemorySizes() == MemorySizes(10, 5, 10000, 128, 5, 30)
    assert MemorySizes().consolidated_frames == 5
    with pytest.raises(AttributeError):
        MemorySizes().every = 4  # type: ignore[misc]  # frozen: that is what is tested
