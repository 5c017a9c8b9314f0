"""The bounded bank and the eager reference side by side, fed with random keys and values instead of a network's."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from samonnx.models.xmem import FrameFeatures, XMemWidths
from samonnx.models.xmem_bank import MemorySizes, XMemBank, empty_bank, working_is_full, write_memory
from samonnx.models.xmem_consolidation import consolidate
from samonnx.models.xmem_reading import count_usage, read_memory
from samonnx.models.xmem_reference import Elements, ReferenceXMem
from tests.models.xmem_tiny import tiny

WIDTHS = tiny().widths
JUNK = 12345.0


def scalar(value: int) -> Tensor:
    return torch.tensor(value, dtype=torch.int32)


def filled_with(bank: XMemBank, junk: float) -> XMemBank:
    """The empty bank with `junk` in every place that is not looked at."""
    kept = {"working_frame", "long_count", "object_since", "frame_count", "last_memory"}

    def filled(name: str, x: Tensor) -> Tensor:
        return x if name in kept else torch.full_like(x, junk if x.is_floating_point() else 7)

    return XMemBank(*(filled(name, x) for name, x in zip(bank._fields, bank, strict=True)))


def random_features(seed: int, height: int, width: int, widths: XMemWidths = WIDTHS) -> FrameFeatures:
    source = torch.Generator().manual_seed(seed)

    def normal(channels: int) -> Tensor:
        return torch.randn(1, channels, height, width, generator=source, dtype=torch.float64)

    none = torch.zeros(1, 0, 0, 0)
    return FrameFeatures(normal(widths.key), 1 + normal(1).square(), normal(widths.key).sigmoid(), none, none, none)


def random_value(seed: int, objects: int, height: int, width: int, widths: XMemWidths = WIDTHS) -> Tensor:
    source = torch.Generator().manual_seed(10_000 + seed)
    return torch.randn(objects, widths.value, height, width, generator=source, dtype=torch.float64)


@dataclass
class Memories:
    """`objects` rows in the bank, `height` x `width` cells; `together` as in `read_memory`."""

    sizes: MemorySizes
    objects: int = 1
    height: int = 2
    width: int = 2
    together: bool = False
    reference: ReferenceXMem = field(init=False)
    bank: XMemBank = field(init=False)
    consolidations: int = 0
    removals: int = 0
    at_capacity: int = 0
    """Consolidations that found exactly as many long-term elements as may stay, where upstream stops."""

    def __post_init__(self) -> None:
        self.reference = ReferenceXMem(tiny(), self.sizes)
        bank = empty_bank(self.sizes, WIDTHS, self.objects, self.height, self.width, torch.float64)
        self.bank = filled_with(bank, JUNK)

    def frame(self, t: int, joined: int, is_memory_frame: bool) -> None:
        """One frame: `joined` objects from now on; read if there is anything to read, write if a memory frame."""
        features = random_features(t, self.height, self.width)
        known_before = len(self.reference.since)
        self.reference.frame_count = t
        self.reference.join(joined)
        if known_before:
            self._read(features)
        is_new = (self.bank.object_since < 0) & (torch.arange(self.objects) < joined)
        self.bank = self.bank._replace(
            object_since=torch.where(is_new, scalar(t), self.bank.object_since), frame_count=scalar(t)
        )
        if is_memory_frame:
            self._write(t, features, joined)
        assert_same_memory(self.reference, self.bank)

    def _read(self, features: FrameFeatures) -> None:
        known = int((self.bank.object_since >= 0).sum())
        reading = read_memory(self.bank, features.key, features.selection, self.sizes.top_k, self.together)
        torch.testing.assert_close(reading.readout[:known], self.reference.read(features)[:known])
        if not self.together:
            assert not reading.readout[known:].any()
        self.bank = count_usage(self.bank, reading, torch.tensor(True))

    def _write(self, t: int, features: FrameFeatures, joined: int) -> None:
        value = random_value(t, self.objects, self.height, self.width)
        value[joined:] = JUNK
        before = self.reference.long_term.size
        found = self.reference.add(features, value[:joined])
        self.bank = write_memory(self.bank, features, value, torch.tensor(True))
        assert bool(working_is_full(self.bank)) == (found is not None)
        if found is not None:
            self.bank = consolidate(self.bank, self.sizes)
            self.consolidations += 1
            self.removals += found.removed > 0
            self.at_capacity += before == self.sizes.long_term - self.sizes.prototypes


def working_elements(bank: XMemBank) -> Elements:
    """Of the filled slots, oldest first."""
    slots = [int(i) for i in bank.working_frame.argsort() if bank.working_frame[i] >= 0]
    cells = bank.working_key.shape[1]
    return Elements(
        bank.working_key[slots].flatten(0, 1),
        bank.working_shrinkage[slots].flatten(),
        bank.working_selection[slots].flatten(0, 1),
        bank.working_value[:, slots].flatten(1, 2),
        bank.working_frame[slots].to(torch.int64).repeat_interleave(cells),
        bank.working_use[slots].flatten(),
        bank.working_life[slots].flatten(),
    )


def long_elements(bank: XMemBank) -> Elements:
    n = int(bank.long_count)
    return Elements(
        bank.long_key[:n],
        bank.long_shrinkage[:n],
        torch.zeros_like(bank.long_key[:n]),
        bank.long_value[:, :n],
        bank.long_frame[:n].to(torch.int64),
        bank.long_use[:n],
        bank.long_life[:n],
    )


def assert_same_memory(reference: ReferenceXMem, bank: XMemBank, tolerance: float | None = None) -> None:
    """Element by element and in the same order; values where their object had joined. `tolerance`: relative and
    absolute, by default torch's for the dtype; the bank may be float32 where the reference is float64."""
    known = len(reference.since)
    assert bank.object_since.tolist()[:known] == reference.since
    close = partial(torch.testing.assert_close, rtol=tolerance, atol=tolerance, check_dtype=False)
    for expected, found in (
        (reference.working, working_elements(bank)),
        (reference.long_term, long_elements(bank)),
    ):
        assert found.frame.tolist() == expected.frame.tolist()
        for name in ("key", "shrinkage", "selection", "use", "life"):
            close(getattr(found, name), getattr(expected, name), msg=partial("{}: {}".format, name))
        for o, since in enumerate(reference.since):
            there = expected.frame >= since
            close(found.value[o, there], expected.value[o, there])
