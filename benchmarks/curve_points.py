"""The points of a cost curve: a recipe, changed in one place, compiled, its bank full."""

from __future__ import annotations

import enum
import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

import samonnx
import samonnx.passes
from benchmarks.graph_step import Array
from samonnx.compile import CompileOptions, compile_recipe
from samonnx.errors import SamonnxError
from samonnx.programs.program import Port
from samonnx.recipe import Recipe, load_recipe
from samonnx.runtime.manifest import MANIFEST_NAME, Manifest
from samonnx.verify_clip import propagation_feeds

__all__ = ["Axis", "Point", "PointCompiler", "overrides_of"]


class Axis(enum.StrEnum):
    """What grows along a curve."""

    SLOTS = "memory slots"
    OBJECTS = "objects"
    IMAGE_SIZE = "image size"


def overrides_of(axis: Axis, x: int, recipe: Recipe) -> tuple[str, ...]:
    """What makes `recipe` the point `x` of the curve. Raises SamonnxError for fewer than two slots.

    Slots: one conditioning slot and the others recent ones, up to the recipe's number of these (the model's table of
    temporal positions ends there); further ones are conditioning slots again, each with a pointer of its own.
    """
    if axis is Axis.OBJECTS:
        return (f"programs.track.objects={x}",)
    if axis is Axis.IMAGE_SIZE:
        return (f"model.args.image_size={x}",)
    if x < 2:
        raise SamonnxError(f"--slots {x}: expected 2 or more, one for a conditioning frame and one for a recent one")
    recent = min(recipe.memory.recent_slots, x - 1)
    return (f"memory.recent_slots={recent}", f"memory.conditioning_slots={x - recent}")


@dataclass(frozen=True)
class Point:
    """A compiled point: its `track` graph and inputs that fill the bank."""

    x: int
    overrides: tuple[str, ...]
    graph: Path
    feeds: dict[str, Array]


@dataclass(frozen=True)
class PointCompiler:
    """Compiles points, or finds them in the folder `cache`, under a name made of the recipe, the target, the checkpoint
    and the compiler's own source: a change to a pass makes new artifacts."""

    recipe: Path
    overrides: tuple[str, ...]
    target: str
    cache: Path
    checkpoint: Path | None = None

    def point(self, axis: Axis, x: int, say: Callable[[str], None] = lambda _: None) -> Point:
        """Raises what compiling raises. `say` is told when it takes long."""
        overrides = (*self.overrides, *overrides_of(axis, x, load_recipe(self.recipe, self.overrides)))
        recipe = load_recipe(self.recipe, overrides)
        folder = self.cache / f"{recipe.name}-{self._key(recipe)}"
        if not (folder / MANIFEST_NAME).exists():
            say(f"{axis} {x}: compile")
            options = CompileOptions(
                checkpoint=self.checkpoint,
                output=folder,
                overrides=overrides,
                targets=(self.target,),
                programs=("track",),
            )
            compile_recipe(self.recipe, options, Console(quiet=True))
        program = Manifest.load(folder).program("track")
        ports = [Port(port.name, port.dtype, port.shape, port.meaning) for port in program.inputs]
        return Point(x, overrides, folder / program.files[self.target], full_bank_feeds(ports, recipe))

    def _key(self, recipe: Recipe) -> str:
        weights = "" if self.checkpoint is None else f"{self.checkpoint.resolve()} {self.checkpoint.stat().st_mtime_ns}"
        text = "\n".join((recipe.digest, self.target, weights, _source_digest()))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def full_bank_feeds(ports: Sequence[Port], recipe: Recipe) -> dict[str, Array]:
    """A propagated frame, every slot filled: the first ones with conditioning frames, the others with the latest."""
    feeds = propagation_feeds(ports)
    now, conditioning = int(feeds["frame_index"]) + recipe.memory.conditioning_slots, recipe.memory.conditioning_slots
    feeds["frame_index"][...] = now
    feeds["num_frames"][...] = 2 * now
    for kind in ("memory", "pointer"):
        frames = feeds[f"bank.{kind}_frame"]
        frames[:] = [*range(conditioning), *range(now - (frames.shape[1] - conditioning), now)]
        feeds[f"bank.{kind}_conditioning"][:] = frames < conditioning
    return feeds


@functools.cache  # this process runs what it has read, whatever is edited meanwhile
def _source_digest() -> str:
    roots = [Path(root) for package in (samonnx, samonnx.passes) for root in package.__path__]
    files = {path.resolve() for root in roots for path in root.rglob("*.py")}
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(path.read_bytes())
    return digest.hexdigest()
