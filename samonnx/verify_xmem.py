"""Verify XMem's programs: each graph against the eager step from the same bank, over a synthetic clip.

A clip of `verify.frames` frames from the empty bank: a mask for object 0 on frame 0, for the others half-way, where
object 0 is given one again, and a last frame. Then one more frame with a full memory, filled by formula, in which every
graph's work is due: the frame joins the memory, which is consolidated, and obsolete elements go. Every frame has a
background of its own, so that ties (see below) stay rare.

Which elements a position reads is decided by rounding where two are equally similar, and moves what is read by far more
than rounding. So the graph's own keys and choice are read off (`probed`) and given to the eager side; that what it
chose is as similar as the best, within CHOICE_TOLERANCE, is a comparison of its own, as are the keys. Likewise
prototypes are chosen by the graph's own counters, which are compared before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from samonnx.eager_lock import EAGER_LOCK
from samonnx.eager_program import EagerRun
from samonnx.engines import open_graph_for
from samonnx.graph_session import Array
from samonnx.models.xmem import XMem
from samonnx.models.xmem_affinity import weights_of
from samonnx.models.xmem_bank import XMemBank, empty_bank, memory_due, working_is_full
from samonnx.models.xmem_consolidation import consolidate
from samonnx.models.xmem_masks import pad
from samonnx.models.xmem_reading import memory_similarities
from samonnx.models.xmem_step import XMemStep
from samonnx.probed import probed
from samonnx.programs.program import Program
from samonnx.programs.xmem import track_program
from samonnx.programs.xmem_components import Consolidate, WriteBank
from samonnx.programs.xmem_ports import XMemSizes
from samonnx.seeded import seeded_frame
from samonnx.verify import Comparison, compare

__all__ = ["CHOICE_TOLERANCE", "STEP_PROBES", "StepFrame", "XMemVerifier", "filled_bank", "xmem_frame"]

CHOICE_TOLERANCE = 1e-5
"""Of the largest similarity: rounding of one product of matrices stays ten times below."""

_KEYS = {name: f"encode_key/{name}" for name in ("key", "shrinkage", "selection")}
_ELEMENT = "find_elements/element"
_COUNTERS = {
    **{name: f"next_bank.{name}" for name in ("working_use", "working_life")},
    **{name: f"write_bank/next_{name}" for name in ("long_use", "long_life")},
}
STEP_PROBES = {**_KEYS, "element": _ELEMENT, **_COUNTERS}
"""Values as they are called in a linked graph; counters, those before a consolidation."""

_BEST, _CHOSEN = "best similarities", "chosen similarities"


def xmem_frame(index: int, height: int, width: int) -> Array:
    """Frame of the synthetic clip as the graph takes it, f32 [1, 3, height, width]."""
    image = seeded_frame(index, max(height, width), seed=index)[:, :height, :width]
    mean, std = (np.array(of_rgb, np.float32)[:, None, None] for of_rgb in (XMem.image_mean, XMem.image_std))
    shown: Array = ((image - mean) / std)[None]
    return shown


def filled_bank(sizes: XMemSizes, seed: int = 0) -> XMemBank:
    """A bank of seeded numbers in which one slot is left, and a consolidation has to remove elements first: the first
    object has all of it, others joined with the second slot."""
    source = torch.Generator().manual_seed(seed)
    memory = sizes.memory
    bank = empty_bank(memory, sizes.widths, sizes.objects, *sizes.grid)

    def drawn(name: str, old: Tensor) -> Tensor:
        if not old.is_floating_point():
            return old
        uniform = torch.rand(old.shape, generator=source)
        if name.endswith(("key", "value", "sensory")):
            return torch.randn(old.shape, generator=source)
        if name.endswith("shrinkage"):
            return 1 + uniform
        return 1 + (20 * uniform).floor() if name.endswith("life") else uniform

    filled = XMemBank(*(drawn(name, old) for name, old in zip(bank._fields, bank, strict=True)))
    slots = memory.working_frames
    frames = torch.arange(slots, dtype=torch.int32) * memory.every
    first = frames[1] if slots > 2 else frames[0]
    since = torch.cat([frames[:1], first.expand(sizes.objects - 1)])
    return filled._replace(
        working_frame=torch.where(torch.arange(slots) == slots - 1, -1, frames),
        long_frame=torch.zeros_like(bank.long_frame),
        long_count=torch.tensor(memory.long_term - memory.prototypes // 2, dtype=torch.int32),
        object_since=since,
        frame_count=frames[-1],
        last_memory=frames[-2],
    )


@dataclass(frozen=True)
class StepFrame:
    """`inputs` of a step beside the bank, by port; `bank` before it."""

    inputs: Mapping[str, Tensor]
    bank: XMemBank

    def feeds(self) -> dict[str, Array]:
        given = {**self.inputs, **{f"bank.{name}": x for name, x in self.bank._asdict().items()}}
        return {name: tensor.numpy() for name, tensor in given.items()}

    def is_for(self, name: str) -> bool:
        """Whether the promise of a specialisation is kept."""
        memory = bool(self.inputs["memory_frame"])
        if name == "track@plain":
            return not memory and not bool(self.inputs["is_given"].any())
        return name != "track@memory" or (memory and not bool(self.inputs["last_frame"]))


class XMemVerifier:
    """Verifies the graphs of one program and target at a time; keeps what the eager side gave."""

    def __init__(self, model: XMem, sizes: XMemSizes, frames: int, tolerance: float) -> None:
        self._model, self._sizes, self._count, self._tolerance = model, sizes, frames, tolerance
        self._program = track_program(model, sizes)
        self._frames: tuple[StepFrame, ...] = ()
        self._steps: dict[tuple[int, bytes], dict[str, Tensor]] = {}

    def verify(self, graphs: Mapping[str, ir.Model], target: str, program: Program) -> Sequence[Comparison]:
        """As `ProgramChecks` says: the worst figure of each output."""
        worst: dict[str, Comparison] = {}
        for name, graph in graphs.items():
            of_graph = self._consolidations if program.name == "consolidate" else self._steps_of
            for one in (comparison.of(name) for comparison in of_graph(name, graph, target)):
                if one.what not in worst or not one.largest_error <= worst[one.what].largest_error:
                    worst[one.what] = one
        return tuple(worst.values())

    def _steps_of(self, name: str, graph: ir.Model, target: str) -> Iterator[Comparison]:
        opened = open_graph_for(target)(probed(graph, STEP_PROBES.values()))
        gives = [str(value.name) for value in graph.graph.outputs]
        for number, frame in enumerate(self._clip()):
            if not frame.is_for(name):
                continue
            found = opened.run(frame.feeds())
            yield from self.step_figures(number, frame, name, gives, found)

    def step_figures(
        self, number: int, frame: StepFrame, name: str, gives: Sequence[str], found: Mapping[str, Array]
    ) -> Iterator[Comparison]:
        """What the graph called `name`, with the outputs `gives`, made of a frame (`found`: outputs and STEP_PROBES),
        against the eager step; `number` tells frames apart."""
        values = self._eager(number, frame, found)
        yield from self._choice(found, values)
        yield compare("probabilities", found["probabilities"], values["probabilities"].numpy(), self._tolerance)
        after = self._bank_after(frame, values)
        if name == "track_and_consolidate":
            counted = {field: found.get(probe) for field, probe in _COUNTERS.items()}
            for field, counter in counted.items():
                if counter is not None:
                    yield compare(field, counter, getattr(after, field).numpy(), self._tolerance)
            taken = {field: torch.from_numpy(x) for field, x in counted.items() if x is not None}
            with EAGER_LOCK, torch.inference_mode():
                after = consolidate(after._replace(**taken), self._sizes.memory)
        left = 0
        for field in XMemBank._fields:
            if f"next_bank.{field}" in gives:
                yield self._held(found, after, field)
            else:
                left += not torch.equal(getattr(after, field), getattr(frame.bank, field))
        yield Comparison("tensors of the bank that change and are not given", float(left), 0.0)

    def _bank_after(self, frame: StepFrame, values: Mapping[str, Tensor]) -> XMemBank:
        return frame.bank._replace(**{name: values[f"next_bank.{name}"] for name in WriteBank.changed})

    def _held(self, found: Mapping[str, Array], after: XMemBank, field: str) -> Comparison:
        name = f"next_bank.{field}"
        return compare(name, found[name], getattr(after, field).numpy(), self._tolerance)

    def _consolidations(self, name: str, graph: ir.Model, target: str) -> Iterator[Comparison]:
        """Of a full memory, and of one that is not full, which comes out as it was."""
        opened = open_graph_for(target)(graph)
        due = filled_bank(self._sizes)
        full = due._replace(working_frame=torch.where(due.working_frame < 0, due.frame_count, due.working_frame))
        for bank in (full, due):
            with EAGER_LOCK, torch.inference_mode():
                after = consolidate(bank, self._sizes.memory)
            found = opened.run({f"bank.{field}": x.numpy() for field, x in bank._asdict().items()})
            for field in Consolidate.changed:
                yield self._held(found, after, field)

    def _clip(self) -> tuple[StepFrame, ...]:
        if not self._frames:
            with EAGER_LOCK, torch.inference_mode():
                self._frames = tuple(_clip_frames(self._model, self._sizes, self._count))
        return self._frames

    def _eager(self, number: int, frame: StepFrame, found: Mapping[str, Array]) -> Mapping[str, Tensor]:
        """The eager step's values with the graph's keys and choice; graphs and targets that agree in them to the bit
        share it."""
        digest = hashlib.sha256(frame.inputs["masks"].numpy().tobytes())
        shown = {name: found[probe] for name, probe in (*_KEYS.items(), ("element", _ELEMENT)) if probe in found}
        for name, array in shown.items():
            digest.update(name.encode() + array.tobytes())
        seen = number, digest.digest()
        if seen not in self._steps:
            with EAGER_LOCK, torch.inference_mode():
                eager = self._model.encode_key(pad(frame.inputs["image"]))
                features = eager._replace(**{name: torch.from_numpy(shown[name]) for name in _KEYS if name in shown})
                element = torch.from_numpy(shown["element"])
                similarities = memory_similarities(frame.bank, features.key, features.selection)
                weight = weights_of(similarities.gather(-1, element))
            given = {f"encode_key.{name}": tensor for name, tensor in features._asdict().items()}
            given |= {"find_elements.weight": weight, "find_elements.element": element}
            feeds = {**frame.inputs, **{f"bank.{name}": tensor for name, tensor in frame.bank._asdict().items()}}
            values = EagerRun().values(self._program, feeds, given)
            kept = {port.name: values[port.name] for port in self._program.outputs}
            kept |= {f"eager {name}": getattr(eager, name) for name in _KEYS}
            best = similarities.topk(element.shape[-1], -1).values
            chosen = similarities.gather(-1, element).sort(-1, descending=True).values
            kept |= {_BEST: _shown(best), _CHOSEN: _shown(chosen)}
            self._steps[seen] = kept
        return self._steps[seen]

    def _choice(self, found: Mapping[str, Array], values: Mapping[str, Tensor]) -> Iterator[Comparison]:
        for name, probe in _KEYS.items():
            if probe in found:  # a graph that writes no memory has no shrinkage
                yield compare(name, found[probe], values[f"eager {name}"].numpy(), self._tolerance)
        chosen, best = (values[name].numpy() for name in (_CHOSEN, _BEST))
        yield compare("similarity of what is read", chosen, best, CHOICE_TOLERANCE)


def _shown(similarities: Tensor) -> Tensor:
    """Places where nothing is as 1, above any similarity: their lowest number would hide any error of the others."""
    return torch.where(similarities > torch.finfo(similarities.dtype).min, similarities, 1.0)


def _clip_frames(model: XMem, sizes: XMemSizes, count: int) -> Iterator[StepFrame]:
    """The frames of the clip with the bank that the eager step has before each, then the two with a full memory: one
    that joins it, one that does not."""
    step, memory = XMemStep(model, sizes.memory).eval(), sizes.memory
    bank = empty_bank(memory, sizes.widths, sizes.objects, *sizes.grid)
    for t in range(count):
        given = torch.tensor([t == 0 or t == count // 2, *[t == count // 2] * (sizes.objects - 1)])
        last = torch.tensor(t == count - 1 and count > 1)
        frame = _frame(sizes, t, given, memory_due(bank, memory.every, given, last), last, bank)
        yield frame
        bank = step(**frame.inputs, bank=bank).bank
        if bool(working_is_full(bank)):
            bank = consolidate(bank, memory)
    none, no = torch.zeros(sizes.objects, dtype=torch.bool), torch.tensor(False)
    for joins in (True, False):
        yield _frame(sizes, count, none, torch.tensor(joins), no, filled_bank(sizes))


def _frame(
    sizes: XMemSizes, t: int, given: Tensor, memory_frame: Tensor, last_frame: Tensor, bank: XMemBank
) -> StepFrame:
    """Each object's mask is a box of its own, a third of the frame high and wide."""
    h, w, o = sizes.height, sizes.width, sizes.objects
    masks = torch.zeros(o, h, w)
    for number in range(o):
        top, left = (number + 1) * h // (3 * o), (2 * number + 1) * w // (3 * o)
        masks[number, top : top + h // 3, left : left + w // 3] = 1
    inputs = {
        "image": torch.from_numpy(xmem_frame(t, h, w)),
        "masks": masks,
        "is_given": given,
        "memory_frame": memory_frame,
        "last_frame": last_frame,
    }
    return StepFrame(inputs, bank)
