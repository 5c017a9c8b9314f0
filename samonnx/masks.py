"""`samonnx masks DIR IMAGE`: find everything in an image, and write an overlay and a file of COCO masks.

Reads with Pillow, runs the artifact in ONNX Runtime, needs no PyTorch. Outputs appear when all is done.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from samonnx.exit_codes import ExitCode, run_command
from samonnx.masks_arguments import MasksArguments, parse_arguments
from samonnx.masks_output import check_output, masks_document, write_masks
from samonnx.plain_warnings import plain_warnings
from samonnx.runtime.automatic_masks.generator import AutomaticMasks, Generated, Progress
from samonnx.runtime.automatic_masks.overlay import draw_masks
from samonnx.runtime.extras import require_extra
from samonnx.runtime.image_predictor import ImagePredictor
from samonnx.runtime.video import read_image

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run with these arguments (the process's own by default); returns an ExitCode."""
    try:
        arguments = parse_arguments(argv)
    except SystemExit as exit_:  # argparse has written usage and reason, or the help
        return int(exit_.code or 0)
    return run_command(lambda: _masks(arguments))


def _masks(arguments: MasksArguments) -> int:
    require_extra("pycocotools.mask", "coco")
    check_output(arguments.image, arguments.output, arguments.document)
    frame = read_image(arguments.image)
    started = time.perf_counter()
    predictor = ImagePredictor(
        arguments.folder, target=arguments.target, threads=arguments.threads, providers=arguments.providers
    )
    with plain_warnings():
        with _progress(quiet=arguments.quiet) as progress:
            generated = AutomaticMasks(predictor, arguments.parameters).generate(frame, progress)
        document = masks_document(
            generated.masks,
            file_name=arguments.image.name,
            preset=arguments.preset,
            parameters=arguments.parameters,
        )
        write_masks(arguments.output, draw_masks(frame, generated.masks), arguments.document, document)
    if not arguments.quiet:
        _print_result(arguments, generated, time.perf_counter() - started)
    return int(ExitCode.OK)


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Progress]:
    """A progress bar on stderr; gives what is told of the points that have been asked."""
    if quiet:
        yield lambda done, total: None
        return
    progress_module, console_module = require_extra("rich.progress", "video"), require_extra("rich.console", "video")
    columns = (
        progress_module.TextColumn("asking"),
        progress_module.BarColumn(),
        progress_module.MofNCompleteColumn(),
        progress_module.TextColumn("points"),
        progress_module.TimeElapsedColumn(),
        progress_module.TimeRemainingColumn(),
    )
    with progress_module.Progress(*columns, console=console_module.Console(stderr=True)) as bar:
        task = bar.add_task("asking", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _print_result(arguments: MasksArguments, generated: Generated, seconds: float) -> None:
    console: Any = require_extra("rich.console", "video").Console()
    found = generated.masks
    title = require_extra("rich.text", "video").Text(f"{arguments.image.name}: {len(found)} masks")
    table = require_extra("rich.table", "video").Table(title=title)
    for heading in ("step", "masks left", "seconds"):
        table.add_column(heading, justify="left" if heading == "step" else "right")
    for step, left, took in _steps(arguments, generated):
        table.add_row(step, left, took)
    console.print(table, markup=False)
    if not len(found):
        _say(console, f"{arguments.image}: nothing found; the table shows which step has dropped the last ones")
    _say(console, f"wrote {arguments.output} and {arguments.document}")
    _say(console, f"1 image in {seconds:.1f} s, opening the graphs and writing included")


def _steps(arguments: MasksArguments, generated: Generated) -> Iterator[tuple[str, str, str]]:
    """Rows of the table. The three filters run together; nearly all of their time goes into stability."""
    chosen, passed = arguments.parameters, generated.passed
    names = {
        "encode": f"look at {_number(4**layer for layer in range(chosen.crop_n_layers + 1))}",
        "decode": "ask the points",
        "filters": "not cut off by a crop",
        "box NMS": f"no double (box IoU above {chosen.box_nms_thresh:g})",
        "crop NMS": f"no double of other crops (box IoU above {chosen.crop_nms_thresh:g})",
        "small regions": f"without regions below {chosen.min_mask_region_area} pixels, no double",
    }
    for stage in generated.stages:
        seconds = f"{stage.seconds:.2f}"
        if stage.name == "filters":
            yield _filter("predicted IoU above", chosen.pred_iou_thresh), str(passed.iou), ""
            yield _filter("stability of at least", chosen.stability_score_thresh), str(passed.stability), seconds
            yield names[stage.name], str(stage.left), ""
        else:
            yield names[stage.name], "" if stage.name == "encode" else str(stage.left), seconds


def _filter(what: str, threshold: float) -> str:
    return f"{what} {threshold:g}" if threshold else f"{what} … (off)"


def _number(crops: Iterator[int]) -> str:
    number = int(np.sum(list(crops)))
    return "the image" if number == 1 else f"the image and {number - 1} crops"


def _say(console: Any, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
