"""XMem's graphs as a runtime drives them, and the eager reference with its growing memory beside them.

The reference computes in float64: it is the truth, of which a graph's float32 may be a rounding away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch

from samonnx.build_model import build_model
from samonnx.graph_session import Array, GraphSession
from samonnx.models.xmem import XMem
from samonnx.models.xmem_bank import XMemBank
from samonnx.models.xmem_reference import ReferenceFrame, ReferenceXMem
from samonnx.programs.xmem import xmem_sizes
from samonnx.programs.xmem_ports import XMemSizes
from samonnx.recipe import Recipe, load_recipe
from samonnx.runtime.manifest import Manifest
from samonnx.seeded import seeded_frame

__all__ = [
    "GIVEN",
    "RECIPE",
    "XMemGraphs",
    "XMemRun",
    "bank_of",
    "clip_frame",
    "mask_of",
    "masks_at",
    "reference_of",
    "reference_step",
    "sizes_of",
]

RECIPE = Path(__file__).parents[2] / "recipes" / "xmem_tiny.yaml"

Masks = Mapping[int, tuple[int, int, int]]
"""Object → top, left and side of a box."""

GIVEN: Mapping[int, Masks] = {
    0: {0: (6, 8, 14)},
    5: {1: (20, 30, 9)},
    8: {0: (10, 12, 14)},
    13: {0: (8, 8, 12), 1: (22, 28, 9)},
}
"""Object 0 from frame 0 on, 1 from frame 5; 0 is corrected on frame 8, both on frame 13."""


@lru_cache(maxsize=4)
def _recipe(overrides: tuple[str, ...]) -> tuple[Recipe, XMem]:
    recipe = load_recipe(RECIPE, overrides)
    model = build_model(recipe).module
    assert isinstance(model, XMem)
    return recipe, model.double()


def sizes_of(*overrides: str) -> XMemSizes:
    recipe, model = _recipe(overrides)
    return xmem_sizes(model, recipe)


def reference_of(*overrides: str) -> ReferenceXMem:
    """A new clip's."""
    recipe, model = _recipe(overrides)
    return ReferenceXMem(model, xmem_sizes(model, recipe).memory)


def mask_of(sizes: XMemSizes, place: tuple[int, int, int]) -> Array:
    """f32 [H, W] of 0 and 1."""
    mask = np.zeros((sizes.height, sizes.width), np.float32)
    top, left, side = place
    mask[top : top + side, left : left + side] = 1
    return mask


def masks_at(t: int, sizes: XMemSizes, clip: Mapping[int, Masks] = GIVEN) -> dict[int, Array]:
    """Those that the clip gives on frame t."""
    return {o: mask_of(sizes, place) for o, place in clip.get(t, {}).items()}


def clip_frame(t: int, sizes: XMemSizes) -> Array:
    """f32 [1, 3, H, W], as long a clip as is wanted: no two frames have the same background, which would make ties."""
    image = seeded_frame(t % 9, max(sizes.height, sizes.width), seed=t)[:, : sizes.height, : sizes.width]
    mean, std = (np.array(of_rgb, np.float32)[:, None, None] for of_rgb in (XMem.image_mean, XMem.image_std))
    shown: Array = ((image - mean) / std)[None]
    return shown


def reference_step(
    reference: ReferenceXMem, image: Array, masks: Mapping[int, Array], last: bool = False
) -> ReferenceFrame:
    """The reference's next frame."""
    given = {o: torch.from_numpy(mask).double() for o, mask in masks.items()}
    with torch.inference_mode():
        return reference.step(torch.from_numpy(image[0]).double(), given, last)


@dataclass(frozen=True)
class XMemGraphs:
    """The emitted graphs of a folder, each opened when it is first run."""

    folder: Path
    target: str = "onnx"
    _opened: dict[str, GraphSession] = field(default_factory=dict)

    @cached_property
    def manifest(self) -> Manifest:
        return Manifest.load(self.folder)

    def run(self, program: str, feeds: Mapping[str, Array]) -> dict[str, Array]:
        if program not in self._opened:
            graph = ir.load(self.folder / self.manifest.program(program).files[self.target])
            self._opened[program] = GraphSession(graph, threads=1)
        return self._opened[program].run(feeds)

    def empty_bank(self, junk: float = 0.0) -> dict[str, Array]:
        """By the manifest; `junk` in places that are not looked at."""
        bank = {}
        for pair in self.manifest.bank:
            fill = junk if pair.dtype == "float32" else 7 if pair.input == "bank.long_frame" and junk else pair.empty
            bank[pair.input] = np.full(pair.shape, fill, np.dtype(pair.dtype))
        return bank


@dataclass
class XMemRun:
    """A clip. `specialised`: frames run by the cheapest graph that may; `inside`: by `track_and_consolidate`."""

    graphs: XMemGraphs
    specialised: bool = False
    inside: bool = False
    junk: float = 0.0
    bank: dict[str, Array] = field(init=False)
    used: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.bank = self.graphs.empty_bank(self.junk)

    def inputs(self, image: Array, masks: Mapping[int, Array], last_frame: bool = False) -> dict[str, Array]:
        """Of the next frame, beside the bank."""
        info = self.graphs.manifest.xmem
        assert info is not None
        t = int(self.bank["bank.frame_count"])
        rows = np.full((info.objects, info.height, info.width), self.junk, np.float32)
        for o, mask in masks.items():
            rows[o] = mask
        due = bool(masks) or t - int(self.bank["bank.last_memory"]) >= info.every
        return {
            "image": image,
            "masks": rows,
            "is_given": np.array([o in masks for o in range(info.objects)]),
            "memory_frame": np.array(due and not last_frame),
            "last_frame": np.array(last_frame),
        }

    def program(self, inputs: Mapping[str, Array]) -> str:
        if self.inside:
            return "track_and_consolidate"
        if not self.specialised:
            return "track"
        if inputs["memory_frame"]:
            return "track@memory"
        return "track" if inputs["is_given"].any() else "track@plain"

    def frame(self, image: Array, masks: Mapping[int, Array], last_frame: bool = False) -> Array:
        """Probabilities of the next frame; the bank goes on, and is consolidated when it is full."""
        inputs = self.inputs(image, masks, last_frame)
        program = self.program(inputs)
        self.used.add(program)
        found = self.graphs.run(program, {**inputs, **self.bank})
        self.take(found)
        if not self.inside and (self.bank["bank.working_frame"] >= 0).all():
            self.take(self.graphs.run("consolidate", self.bank))
        return found["probabilities"]

    def take(self, found: Mapping[str, Array]) -> None:
        """What a graph gives takes the place of what was; the rest stays."""
        for name, array in found.items():
            if name.startswith("next_bank."):
                self.bank[name.removeprefix("next_")] = array


def bank_of(bank: Mapping[str, Array]) -> XMemBank:
    """In float32 tensors."""
    return XMemBank(**{name: torch.from_numpy(bank[f"bank.{name}"]) for name in XMemBank._fields})
