"""The original's clips through full-size XMem, by the eager reference or by the bounded bank, and how far each tensor
is from the original's (`golden/xmem/NOTES.md`)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from samonnx.models.xmem import XMem, build
from samonnx.models.xmem_bank import MemorySizes, empty_bank, memory_due, working_is_full
from samonnx.models.xmem_consolidation import candidates, choose_prototypes, consolidate
from samonnx.models.xmem_reference import Elements, ReferenceConsolidation, ReferenceXMem
from samonnx.models.xmem_step import XMemStep
from samonnx.seeded import seeded_frame
from samonnx.weights import fill_seeded
from tests.models.xmem_memories import long_elements, working_elements

Array = np.ndarray[Any, np.dtype[Any]]

GOLDEN = Path(__file__).parents[2] / "golden" / "xmem"
SIZE = 384


def full_model(dtype: torch.dtype = torch.float32) -> XMem:
    model = build().requires_grad_(False)
    fill_seeded(model, 0, components=model.components)
    return model.to(dtype)


def _dtype(model: XMem) -> torch.dtype:
    return model.key_proj.key_proj.weight.dtype


def golden(clip: str) -> dict[str, Array]:
    with np.load(GOLDEN / f"{clip}.npz") as archive:
        return dict(archive)


def golden_sizes(clip: str) -> MemorySizes:
    config = json.loads((GOLDEN / f"{clip}.json").read_text())["config"]
    return MemorySizes(
        config["max_mid_term_frames"],
        config["min_mid_term_frames"],
        config["max_long_term_elements"],
        config["num_prototypes"],
        config["mem_every"],
        config["top_k"],
    )


def golden_image(clip: str, t: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """[3, 384, 384], normalised in float32."""
    image = torch.from_numpy(seeded_frame(t, SIZE, seed=t if clip == "xmem_drift" else 0))
    mean, std = (torch.tensor(of_rgb)[:, None, None] for of_rgb in (XMem.image_mean, XMem.image_std))
    return ((image - mean) / std).to(dtype)


@dataclass
class Probe:
    """What went through the networks during the latest frame."""

    readout: Tensor | None = None
    value: Tensor | None = None
    projected: tuple[Tensor, ...] = ()

    def watch(self, model: XMem) -> None:
        model.key_proj.register_forward_hook(self._projected)
        model.value_encoder.register_forward_hook(self._encoded)
        model.decoder.register_forward_pre_hook(self._decoded)

    def _projected(self, module: nn.Module, inputs: object, outputs: tuple[Tensor, ...]) -> None:
        self.readout, self.value, self.projected = None, None, outputs

    def _encoded(self, module: nn.Module, inputs: object, outputs: tuple[Tensor, ...]) -> None:
        self.value = outputs[0]

    def _decoded(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.readout = inputs[3]


@dataclass(frozen=True)
class ClipFrame:
    """A frame and the memory after it."""

    t: int
    probabilities: Tensor
    sensory: Tensor
    working: Elements
    long_term: Elements
    is_memory_frame: bool
    consolidation: ReferenceConsolidation | None


def reference_frames(model: XMem, clip: str, frames: int) -> Iterator[ClipFrame]:
    tracker, dtype = ReferenceXMem(model, golden_sizes(clip)), _dtype(model)
    masks = torch.from_numpy(golden(clip)["masks"]).to(dtype)
    for t in range(frames):
        given = {o: masks[o] for o in range(2)} if t == 0 else None
        found = tracker.step(golden_image(clip, t, dtype), given, is_last(clip, t))
        yield ClipFrame(
            t,
            found.probabilities,
            tracker.sensory,
            tracker.working,
            tracker.long_term,
            found.is_memory_frame,
            found.consolidation,
        )


def bounded_frames(model: XMem, clip: str, frames: int) -> Iterator[ClipFrame]:
    sizes, dtype = golden_sizes(clip), _dtype(model)
    step = XMemStep(model, sizes)
    bank = empty_bank(sizes, model.widths, 2, SIZE // 16, SIZE // 16, dtype)
    masks = torch.from_numpy(golden(clip)["masks"]).to(dtype)
    for t in range(frames):
        given, last = torch.tensor([t == 0] * 2), torch.tensor(is_last(clip, t))
        due = memory_due(bank, sizes.every, given, last)
        probabilities, bank = step(golden_image(clip, t, dtype)[None], masks, given, due, last, bank)
        consolidation = None
        if bool(working_is_full(bank)):
            found = candidates(bank, sizes)
            new = choose_prototypes(found, bank.object_since, sizes.prototypes)
            before = int(bank.long_count)
            bank = consolidate(bank, sizes)
            removed = before + len(new.chosen) - int(bank.long_count)
            consolidation = ReferenceConsolidation(new.chosen, found.usage, new.shrinkage, removed)
        yield ClipFrame(
            t, probabilities, bank.sensory, working_elements(bank), long_elements(bank), bool(due), consolidation
        )


def is_last(clip: str, t: int) -> bool:
    return clip == "xmem_short" and t == 11


@dataclass
class Figures:
    """`largest`, `rms` and `median` deviation of each tensor at each frame; `different`: frame, name, found, expected
    of what should be equal."""

    largest: dict[str, dict[int, float]] = field(default_factory=dict)
    rms: dict[str, dict[int, float]] = field(default_factory=dict)
    median: dict[str, dict[int, float]] = field(default_factory=dict)
    different: list[tuple[int, str, object, object]] = field(default_factory=list)

    def note(self, t: int, name: str, found: Tensor, expected: Array) -> None:
        assert tuple(found.shape) == expected.shape, (name, found.shape, expected.shape)
        deviation = np.abs(found.numpy().astype(np.float64) - expected)
        self.largest.setdefault(name, {})[t] = float(deviation.max())
        self.rms.setdefault(name, {})[t] = float(np.sqrt((deviation**2).mean()))
        self.median.setdefault(name, {})[t] = float(np.median(deviation))

    def same(self, t: int, name: str, found: object, expected: object) -> None:
        if found != expected:
            self.different.append((t, name, found, expected))


def compare(figures: Figures, frame: ClipFrame, probe: Probe, reference: Mapping[str, Array]) -> None:
    """Everything that the file has of this frame."""
    t = frame.t
    sampled = {
        "prob": frame.probabilities,
        "hidden": frame.sensory,
        "key": probe.projected[0][0],
        "selection": probe.projected[2][0],
    }
    for name, found in sampled.items():
        for stride in (2, 4, 8):
            if f"{name}_s{stride}" in reference:
                figures.note(t, name, found[..., ::stride, ::stride], reference[f"{name}_s{stride}"][t])
    figures.note(t, "shrinkage", probe.projected[1][0, 0], reference["shrinkage"][t])
    if "readout_s8" in reference and t > 0:
        assert probe.readout is not None
        figures.note(t, "readout", probe.readout[..., ::8, ::8], reference["readout_s8"][t - 1])
    figures.same(t, "memory frame", frame.is_memory_frame, bool(reference["is_memory_frame"][t]))
    figures.same(t, "sizes", [frame.working.size, frame.long_term.size], reference["memory_size"][t].tolist())
    if "value_s8" in reference and frame.is_memory_frame:
        assert probe.value is not None
        place = int(reference["is_memory_frame"][:t].sum())
        figures.note(t, "value", probe.value[..., ::8, ::8], reference["value_s8"][place])
    _compare_counters(figures, frame, reference)
    _compare_consolidation(figures, frame, reference)


def _compare_counters(figures: Figures, frame: ClipFrame, reference: Mapping[str, Array]) -> None:
    for kind, elements in (("work", frame.working), ("long", frame.long_term)):
        name = f"f{frame.t:02d}.{kind}_use_count"
        if name in reference:
            figures.note(frame.t, f"{kind} use", elements.use, reference[name])
            figures.note(frame.t, f"{kind} life", elements.life, reference[f"f{frame.t:02d}.{kind}_life_count"])


def _compare_consolidation(figures: Figures, frame: ClipFrame, reference: Mapping[str, Array]) -> None:
    at = reference["consolidated_at"].tolist()
    figures.same(frame.t, "consolidated", frame.consolidation is not None, frame.t in at)
    if frame.consolidation is None or frame.t not in at:
        return
    name = f"cons{at.index(frame.t):02d}"
    found, expected = frame.consolidation.prototype_index.tolist(), reference[f"{name}.prototype_indices"].tolist()
    figures.same(frame.t, "prototypes", found, [int(n) for n in expected])
    figures.note(frame.t, "usage", frame.consolidation.candidate_usage, reference[f"{name}.candidate_usage"])
    figures.note(
        frame.t, "prototype shrinkage", frame.consolidation.shrinkage, reference[f"{name}.prototype_shrinkage"]
    )
