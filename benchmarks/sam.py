"""The programs of SAM side by side: eager PyTorch as the original computes, this project's eager modules, and the
compiled graphs.

python -m benchmarks sam recipes/sam_vit_b.yaml --artifact dist/sam_vit_b --json sam.json --plot sam.png

`predict` is measured with one click and with many at once, as automatic masks ask for; `predict@points` is the graph
for prompts without masks.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.arguments import basic_parser, positive
from benchmarks.artifact import recipe_artifact
from benchmarks.graph_step import Array
from benchmarks.machine import machine_facts
from benchmarks.original_sam import original_attention
from benchmarks.pieces import GraphWork, Outputs, Piece, PiecesResult, measure_piece
from benchmarks.pieces_report import plot_pieces, print_pieces
from benchmarks.reporting import run_benchmark
from samonnx.build_model import build_model
from samonnx.errors import SamonnxError
from samonnx.models.sam import Sam
from samonnx.recipe import load_recipe
from samonnx.runtime.manifest import Manifest
from samonnx.verify_clip import normalised_frame

__all__ = ["main", "measure_sam"]

ORIGINAL, MODULES = "eager, the original's attention", "eager"


def measure_sam(
    recipe_path: Path,
    artifact: Path | None,
    checkpoint: Path | None,
    prompts: Sequence[int],
    repeats: int,
    threads: int,
    progress: Callable[[str], None] = lambda _: None,
) -> PiecesResult:
    """Raises SamonnxError for a recipe whose model is no SAM, and what compiling raises."""
    torch.set_num_threads(threads)
    machine = machine_facts()
    recipe = load_recipe(recipe_path)
    progress("build the module")
    built = build_model(recipe, checkpoint)
    model = built.module
    if not isinstance(model, Sam):
        raise SamonnxError(f"recipe {recipe.name}: its model is a {type(model).__name__}; this benchmark is for SAM")
    progress("compile, unless it is there")
    folder, manifest = recipe_artifact(recipe_path, recipe, artifact, checkpoint)
    image = normalised_frame(0, model.sizes.image_size, model.image_mean, model.image_std)
    pieces = [_encoding(model, image, folder, manifest)]
    with torch.inference_mode():
        features = model.encode_image(torch.from_numpy(image)).numpy()
    places = manifest.program("predict").inputs[1].sides()[1]
    pieces += [_prediction(model, features, count, places, folder, manifest) for count in prompts]
    results = tuple(measure_piece(piece, repeats, threads, progress) for piece in pieces)
    return PiecesResult(
        f"The programs of {recipe.name}",
        recipe.name,
        recipe.digest,
        built.weights.source,
        repeats,
        threads,
        recipe.verify.atol,
        machine,
        results,
    )


def _graphs(
    folder: Path, manifest: Manifest, programs: Sequence[str], feeds: Mapping[str, Array]
) -> dict[str, GraphWork]:
    """By name: the target, and the program where there are several."""
    return {
        (target if len(programs) == 1 else f"{program}, {target}"): GraphWork(folder / file, feeds)
        for program in programs
        for target, file in manifest.program(program).files.items()
        if target != "openvino"
    }


def _encoding(model: Sam, image: Array, folder: Path, manifest: Manifest) -> Piece:
    given = torch.from_numpy(image)

    @torch.inference_mode()
    def modules() -> Outputs:
        return {"features": model.encode_image(given).numpy()}

    def original() -> Outputs:
        with original_attention():
            return modules()

    graphs = _graphs(folder, manifest, ("encode_image",), {"image": image})
    return Piece("encode_image", {ORIGINAL: original, MODULES: modules}, graphs)


def _prediction(model: Sam, features: Array, count: int, places: int, folder: Path, manifest: Manifest) -> Piece:
    """`count` prompts of one click each, at places of a grid."""
    random, low = np.random.default_rng(0), model.sizes.low_res
    coords = (random.random((count, places, 2)) * model.sizes.image_size).astype(np.float32)
    labels = np.full((count, places), -1, np.int32)
    labels[:, 0] = 1
    feeds: dict[str, Array] = {
        "features": features,
        "point_coords": coords,
        "point_labels": labels,
        "mask_input": np.zeros((count, 1, low, low), np.float32),
        "mask_input_valid": np.zeros(count, np.bool_),
    }
    given = [torch.from_numpy(array) for array in feeds.values()]

    @torch.inference_mode()
    def modules() -> Outputs:
        masks = model.predict(*given)
        candidates, single = masks.of_mode(True), masks.of_mode(False)
        outputs = (candidates.logits, candidates.ious, single.logits, single.ious)
        names = ("low_res_masks", "ious", "single_mask", "single_iou")
        return {name: tensor.numpy() for name, tensor in zip(names, outputs, strict=True)}

    graphs = _graphs(folder, manifest, ("predict", "predict@points"), feeds)
    return Piece(f"predict, {count} prompt{'s' if count > 1 else ''}", {MODULES: modules}, graphs)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns an `ExitCode`: CHECK_FAILED when outputs disagree (everything is written first)."""
    parser = basic_parser("sam", "Measure SAM's programs: eager PyTorch and the compiled graphs.", "--plot sam.png")
    parser.set_defaults(recipe=Path("recipes/sam_vit_b.yaml"))
    parser.add_argument("--artifact", type=Path, metavar="DIR", help="compiled there if absent (default: dist/<name>)")
    parser.add_argument(
        "--prompts", type=positive, action="append", metavar="N", help="prompts at once; repeatable (default: 1, 32)"
    )
    args = parser.parse_args(argv)

    def measure(progress: Callable[[str], None]) -> PiecesResult:
        prompts = args.prompts or (1, 32)
        return measure_sam(args.recipe, args.artifact, args.checkpoint, prompts, args.repeats, args.threads, progress)

    def plot(result: PiecesResult, args: argparse.Namespace) -> None:
        plot_pieces(result, args.plot)

    return run_benchmark(args, measure, print_pieces, plot, lambda result: result.disagreement)
