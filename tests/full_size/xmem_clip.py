"""The originals' clips through emitted XMem graphs, stepping the bank in ONNX Runtime as a runtime does, and how far
each tensor is from the original's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch

from samonnx.graph_session import Array, GraphSession
from samonnx.models.xmem_bank import MemorySizes, XMemBank, working_is_full
from samonnx.models.xmem_consolidation import candidates
from samonnx.models.xmem_reference import ReferenceConsolidation
from samonnx.probed import probed
from samonnx.runtime.manifest import Manifest
from tests.models.xmem_clip import (
    ClipFrame,
    Figures,
    Probe,
    compare,
    golden,
    golden_image,
    golden_sizes,
    is_last,
)
from tests.models.xmem_memories import long_elements, working_elements

__all__ = ["clip_figures", "overrides_of"]

_PROBES = {
    "key": "encode_key/key",
    "shrinkage": "encode_key/shrinkage",
    "selection": "encode_key/selection",
    "readout": "read_elements/readout",
    "value": "encode_value/value",
}


def overrides_of(sizes: MemorySizes) -> tuple[str, ...]:
    """`--set` arguments: the clips' frames and objects, and these sizes of the memory."""
    fields = ("working_frames", "min_working_frames", "long_term", "prototypes", "every", "top_k")
    memory = (f"memory.{name}={getattr(sizes, name)}" for name in fields)
    return ("programs.track={objects: 2, height: 384, width: 384}", *memory, "verify.frames=1")


class _Graphs:
    """Opened one at a time: each has buffers of its own."""

    def __init__(self, folder: Path, target: str) -> None:
        self._folder, self._target, self._manifest = folder, target, Manifest.load(folder)
        self._opened: tuple[str, GraphSession] | None = None

    def empty_bank(self) -> dict[str, Array]:
        return {p.input: np.full(p.shape, p.empty, np.dtype(p.dtype)) for p in self._manifest.bank}

    def run(self, program: str, feeds: Mapping[str, Array]) -> dict[str, Array]:
        if self._opened is None or self._opened[0] != program:
            self._opened = None
            graph = ir.load(self._folder / self._manifest.program(program).files[self._target])
            self._opened = program, GraphSession(probed(graph, _PROBES.values()), threads=2)
        return self._opened[1].run(feeds)


def clip_figures(folder: Path, clip: str, target: str, specialised: bool = False) -> Figures:
    """Every frame of the clip. `specialised`: by `track@memory` and `track@plain`; else by `track` alone."""
    figures, reference, probe = Figures(), golden(clip), Probe()
    for frame, found in _frames(_Graphs(folder, target), clip, specialised):
        tensors = {name: torch.from_numpy(found[key]) for name, key in _PROBES.items() if key in found}
        # A graph that writes no memory does not compute shrinkage; what it would be is not compared then.
        t, key = frame.t, tensors["key"]
        shrinkage = tensors.get("shrinkage", torch.from_numpy(reference["shrinkage"][t])[None, None])
        probe.projected = key, shrinkage, tensors["selection"]
        probe.readout, probe.value = tensors["readout"], tensors.get("value")
        compare(figures, frame, probe, reference)
    return figures


def _frames(graphs: _Graphs, clip: str, specialised: bool) -> Iterator[tuple[ClipFrame, dict[str, Array]]]:
    sizes, masks, bank = golden_sizes(clip), golden(clip)["masks"].astype(np.float32), graphs.empty_bank()
    for t in range(len(golden(clip)["is_memory_frame"])):
        last = is_last(clip, t)
        due = (t == 0 or t - int(bank["bank.last_memory"]) >= sizes.every) and not last
        inputs = {
            "image": golden_image(clip, t)[None].numpy(),
            "masks": masks,
            "is_given": np.array([t == 0] * 2),
            "memory_frame": np.array(due),
            "last_frame": np.array(last),
        }
        program = "track" if not specialised else "track@memory" if due else "track@plain"
        found = graphs.run(program, {**inputs, **bank})
        bank |= _next(found)
        consolidation, before = None, _bank(bank)
        if bool(working_is_full(before)):
            bank |= _next(graphs.run("consolidate", bank))
            consolidation = _consolidation(before, _bank(bank), sizes)
        after = _bank(bank)
        yield (
            ClipFrame(
                t,
                torch.from_numpy(found["probabilities"]),
                after.sensory,
                working_elements(after),
                long_elements(after),
                due,
                consolidation,
            ),
            found,
        )


def _next(found: Mapping[str, Array]) -> dict[str, Array]:
    return {name.removeprefix("next_"): array for name, array in found.items() if name.startswith("next_bank.")}


def _bank(bank: Mapping[str, Array]) -> XMemBank:
    return XMemBank(**{name: torch.from_numpy(bank[f"bank.{name}"]) for name in XMemBank._fields})


def _consolidation(before: XMemBank, after: XMemBank, sizes: MemorySizes) -> ReferenceConsolidation:
    """What the graph did: the candidates of its counters, those whose keys its new elements have, their shrinkage."""
    found = candidates(before, sizes)
    count = int(after.long_count)
    added = min(sizes.prototypes, len(found.usage))
    key, shrinkage = (x[count - added : count] for x in (after.long_key, after.long_shrinkage))
    same = (found.key == key[:, None]).all(2)
    assert same.any(1).all(), "a prototype has the key of no candidate"
    # Where the background stands still, cells of several frames have one key to the bit: the most used one is meant.
    index = torch.where(same, found.usage, -1.0).argmax(1)
    return ReferenceConsolidation(index, found.usage, shrinkage, int(before.long_count) + added - count)
