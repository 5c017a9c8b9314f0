"""A frame of XMem side by side: the eager reference with its growing memory, read as the original reads it, and the
compiled graphs, with full memories.

python -m benchmarks xmem recipes/xmem.yaml --artifact dist/xmem --json xmem.json --plot xmem.png

Working memory holds one frame fewer than at which it is consolidated, the long-term memory all it may. A plain frame
reads memory and decodes; a memory frame encodes its value and joins the working memory as well, which is one of
`memory.every` frames.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.arguments import basic_parser
from benchmarks.artifact import recipe_artifact
from benchmarks.graph_step import Array
from benchmarks.machine import machine_facts
from benchmarks.pieces import GraphWork, Outputs, Piece, PiecesResult, measure_piece
from benchmarks.pieces_report import plot_pieces, print_pieces
from benchmarks.reporting import run_benchmark
from samonnx.build_model import build_model
from samonnx.errors import SamonnxError
from samonnx.models.xmem import XMem
from samonnx.models.xmem_bank import XMemBank, empty_bank
from samonnx.models.xmem_reference import Elements, ReferenceXMem
from samonnx.programs.xmem import xmem_sizes
from samonnx.programs.xmem_ports import XMemSizes
from samonnx.recipe import load_recipe
from samonnx.runtime.manifest import Manifest

__all__ = ["full_bank", "main", "measure_xmem", "reference_of"]

EAGER = "eager"


def full_bank(sizes: XMemSizes, seed: int = 0) -> XMemBank:
    """All but one working slot and all long-term places filled with seeded numbers of the ranges that they have."""
    random = torch.Generator().manual_seed(seed)
    memory, (height, width) = sizes.memory, sizes.grid
    bank = empty_bank(memory, sizes.widths, sizes.objects, height, width)
    filled = memory.working_frames - 1

    def normal(like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=random)

    def between(like: torch.Tensor, low: float, high: float) -> torch.Tensor:
        return torch.rand(like.shape, generator=random) * (high - low) + low

    frames = torch.arange(memory.working_frames, dtype=torch.int32) * memory.every
    return bank._replace(
        working_key=normal(bank.working_key),
        working_shrinkage=between(bank.working_shrinkage, 1, 3),
        working_selection=between(bank.working_selection, 0, 1),
        working_value=normal(bank.working_value),
        working_use=between(bank.working_use, 0, 1),
        working_life=between(bank.working_life, 1, 9),
        working_frame=torch.where(torch.arange(memory.working_frames) < filled, frames, -1).to(torch.int32),
        long_key=normal(bank.long_key),
        long_shrinkage=between(bank.long_shrinkage, 1, 3),
        long_value=normal(bank.long_value),
        long_use=between(bank.long_use, 0, 1),
        long_life=between(bank.long_life, 1, 9),
        long_frame=torch.zeros_like(bank.long_frame),
        long_count=torch.tensor(memory.long_term, dtype=torch.int32),
        sensory=normal(bank.sensory),
        object_since=torch.zeros_like(bank.object_since),
        frame_count=(frames[filled - 1] + memory.every).to(torch.int32),
        last_memory=frames[filled - 1].to(torch.int32),
    )


@dataclass(frozen=True)
class _Memories:
    """What the reference holds."""

    working: Elements
    long_term: Elements


def _memories(bank: XMemBank) -> _Memories:
    slots = [int(slot) for slot in (bank.working_frame >= 0).nonzero()[:, 0]]
    cells = bank.working_key.shape[1]
    count = int(bank.long_count)
    working = Elements(
        key=bank.working_key[slots].flatten(0, 1),
        shrinkage=bank.working_shrinkage[slots].flatten(),
        selection=bank.working_selection[slots].flatten(0, 1),
        value=bank.working_value[:, slots].flatten(1, 2),
        frame=bank.working_frame[slots].to(torch.int64).repeat_interleave(cells),
        use=bank.working_use[slots].flatten(),
        life=bank.working_life[slots].flatten(),
    )
    long_term = Elements(
        key=bank.long_key[:count],
        shrinkage=bank.long_shrinkage[:count],
        selection=torch.zeros_like(bank.long_key[:count]),
        value=bank.long_value[:, :count],
        frame=bank.long_frame[:count].to(torch.int64),
        use=bank.long_use[:count],
        life=bank.long_life[:count],
    )
    return _Memories(working, long_term)


def reference_of(model: XMem, sizes: XMemSizes, bank: XMemBank, memory_frame: bool) -> ReferenceXMem:
    """The eager reference with the memory of `bank`, whose next frame is a memory frame or not."""
    reference, held = ReferenceXMem(model, sizes.memory), _memories(bank)
    reference.working, reference.long_term, reference.sensory = held.working, held.long_term, bank.sensory
    reference.since = [0] * sizes.objects
    reference.frame_count = int(bank.frame_count)
    reference.last_memory = reference.frame_count - (sizes.memory.every if memory_frame else 1)
    return reference


def _piece(
    model: XMem, sizes: XMemSizes, bank: XMemBank, image: Array, folder: Path, manifest: Manifest, memory_frame: bool
) -> Piece:
    given = torch.from_numpy(image)[0]

    @torch.inference_mode()
    def eager() -> Outputs:
        reference = reference_of(model, sizes, bank, memory_frame)
        return {"probabilities": reference.step(given).probabilities.numpy()}

    feeds: dict[str, Array] = {f"bank.{name}": tensor.numpy() for name, tensor in bank._asdict().items()}
    feeds |= {
        "image": image,
        "masks": np.zeros((sizes.objects, *image.shape[-2:]), np.float32),
        "is_given": np.zeros(sizes.objects, np.bool_),
        "memory_frame": np.array(memory_frame),
        "last_frame": np.array(False),
    }
    graphs = _graphs(folder, manifest, ("track", "track@memory" if memory_frame else "track@plain"), feeds)
    return Piece("memory frame" if memory_frame else "plain frame", {EAGER: eager}, graphs)


def _graphs(
    folder: Path, manifest: Manifest, programs: Sequence[str], feeds: Mapping[str, Array]
) -> dict[str, GraphWork]:
    return {
        f"{program}, {target}": GraphWork(folder / file, feeds)
        for program in programs
        if manifest.has_program(program)
        for target, file in manifest.program(program).files.items()
        if target != "openvino"
    }


def measure_xmem(
    recipe_path: Path,
    artifact: Path | None,
    checkpoint: Path | None,
    repeats: int,
    threads: int,
    progress: Callable[[str], None] = lambda _: None,
) -> PiecesResult:
    """Raises SamonnxError for a recipe whose model is no XMem, and what compiling raises."""
    torch.set_num_threads(threads)
    machine = machine_facts()
    recipe = load_recipe(recipe_path)
    progress("build the module")
    built = build_model(recipe, checkpoint)
    model = built.module
    if not isinstance(model, XMem):
        raise SamonnxError(f"recipe {recipe.name}: its model is a {type(model).__name__}; this benchmark is for XMem")
    progress("compile, unless it is there")
    folder, manifest = recipe_artifact(recipe_path, recipe, artifact, checkpoint)
    sizes = xmem_sizes(model, recipe)
    bank = full_bank(sizes)
    random = np.random.default_rng(0)
    image = random.standard_normal((1, 3, sizes.height, sizes.width)).astype(np.float32)
    pieces = [_piece(model, sizes, bank, image, folder, manifest, memory_frame) for memory_frame in (False, True)]
    return PiecesResult(
        f"A frame of {recipe.name}, {sizes.height} x {sizes.width}, {sizes.objects} objects, full memories",
        recipe.name,
        recipe.digest,
        built.weights.source,
        repeats,
        threads,
        recipe.verify.atol,
        machine,
        tuple(measure_piece(piece, repeats, threads, progress) for piece in pieces),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns an `ExitCode`: CHECK_FAILED when outputs disagree (everything is written first)."""
    parser = basic_parser("xmem", "Measure a frame of XMem: eager PyTorch and the compiled graphs.", "--plot xmem.png")
    parser.set_defaults(recipe=Path("recipes/xmem.yaml"))
    parser.add_argument("--artifact", type=Path, metavar="DIR", help="compiled there if absent (default: dist/<name>)")
    args = parser.parse_args(argv)

    def measure(progress: Callable[[str], None]) -> PiecesResult:
        return measure_xmem(args.recipe, args.artifact, args.checkpoint, args.repeats, args.threads, progress)

    def plot(result: PiecesResult, args: argparse.Namespace) -> None:
        plot_pieces(result, args.plot)

    return run_benchmark(args, measure, print_pieces, plot, lambda result: result.disagreement)
