"""`samonnx segment DIR IMAGE`: find what words, boxes and points describe, and write overlays and COCO files.

Reads with Pillow, runs the artifact in ONNX Runtime, needs no PyTorch. Outputs appear when all is done.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from samonnx.exit_codes import ExitCode, run_command
from samonnx.plain_warnings import plain_warnings
from samonnx.prompt_arguments import PromptArgument, check_boxes, make_prompts
from samonnx.runtime.coco import coco_document
from samonnx.runtime.detections import Detections
from samonnx.runtime.extras import require_extra
from samonnx.runtime.overlay import draw_overlay
from samonnx.runtime.prompts import PromptError, Prompts, check_on_frame
from samonnx.runtime.segmenter import WITHOUT_WORDS, Segmenter
from samonnx.runtime.video import IMAGE_SUFFIXES, VideoError, images_in, open_frames, read_image
from samonnx.segment_arguments import SegmentArguments, parse_arguments
from samonnx.segment_output import SegmentOutput

__all__ = ["main"]

Frame = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Photo:
    """An image that has been decoded; `frame` is None if it is to be decoded again."""

    path: Path
    width: int
    height: int
    frame: Frame | None


@dataclass(frozen=True, eq=False)
class Result:
    """What was found in one image, and how long the segmenter took; on the first image it may open graphs too."""

    image: Photo
    scores: tuple[float, ...]
    boxes: npt.NDArray[np.float32]
    areas: tuple[int, ...]
    best_score: float
    seconds: float


def main(argv: Sequence[str] | None = None) -> int:
    """Run with these arguments (the process's own by default); returns an ExitCode."""
    try:
        arguments = parse_arguments(argv)
    except SystemExit as exit_:  # argparse has written usage and reason, or the help
        return int(exit_.code or 0)
    return run_command(lambda: _segment(arguments))


def _segment(arguments: SegmentArguments) -> int:
    require_extra("pycocotools.mask", "coco")
    prompts = make_prompts(arguments.prompts)
    paths = _image_paths(arguments.images)
    output = SegmentOutput(arguments.output, paths)
    images = _open_images(paths, arguments.prompts, prompts)
    started = time.perf_counter()
    segmenter = Segmenter(
        arguments.folder,
        target=arguments.target,
        threads=arguments.threads,
        providers=arguments.providers,
        vocabulary=arguments.vocabulary,
    )
    threshold = segmenter.detection.score_threshold if arguments.threshold is None else arguments.threshold
    results = []
    with plain_warnings(), output, _progress(len(images), quiet=arguments.quiet) as advance:
        for image in images:
            frame = read_image(image.path) if image.frame is None else image.frame
            asked = time.perf_counter()
            found = segmenter.segment(frame, prompts, threshold=threshold, nms=arguments.nms)
            results.append(_result(image, found, time.perf_counter() - asked))
            document = coco_document(found, file_name=image.path.name, prompts=prompts)
            output.write(image.path, _overlay(frame, found, prompts), document)
            advance()
    if not arguments.quiet:
        _print_results(results, prompts, threshold, output, time.perf_counter() - started)
    return int(ExitCode.OK)


def _image_paths(given: Sequence[Path]) -> list[Path]:
    """Every image, those of folders among them. Raises VideoError for what is none."""
    found: list[Path] = []
    for path in given:
        if path.is_dir():
            found += images_in(path)
        elif path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES:
            found.append(path)
        else:
            open_frames(path)  # says what is wrong with it if it is no video either
            raise VideoError(f"{path} is a video, and segment takes images; for a video there is samonnx track")
    return found


def _open_images(paths: Sequence[Path], given: Sequence[PromptArgument], prompts: Prompts) -> list[Photo]:
    """All are decoded before anything runs, so that a damaged one, or prompts beyond it, cost no work.

    A single one is kept; several may not fit in memory together, and are decoded again when their turn comes. Raises
    VideoError and PromptError.
    """
    photos = []
    for path in paths:
        frame = read_image(path)
        height, width = frame.shape[:2]
        try:
            check_boxes(given, width=width, height=height)
            check_on_frame(prompts, width=width, height=height)
        except PromptError as error:
            raise PromptError(f"{path}: {error}") from error
        photos.append(Photo(path, width, height, frame if len(paths) == 1 else None))
    return photos


def _result(image: Photo, found: Detections, seconds: float) -> Result:
    return Result(
        image=image,
        scores=tuple(float(score) for score in found.scores),
        boxes=found.boxes,
        areas=tuple(int(mask.sum()) for mask in found.masks),
        best_score=found.best_score,
        seconds=seconds,
    )


def _overlay(frame: Frame, found: Detections, prompts: Prompts) -> Frame:
    labels = [f"{rank}  {score:.2f}" for rank, score in enumerate(found.scores, start=1)]
    return draw_overlay(frame, found.masks, labels=labels, boxes=found.boxes, prompts=[prompts])


@contextmanager
def _progress(count: int, *, quiet: bool) -> Iterator[Callable[[], None]]:
    """A progress bar on stderr for several images; gives the function that moves it on by one."""
    if quiet or count == 1:
        yield lambda: None
        return
    progress_module, console_module = require_extra("rich.progress", "video"), require_extra("rich.console", "video")
    columns = (
        progress_module.TextColumn("segmenting"),
        progress_module.BarColumn(),
        progress_module.MofNCompleteColumn(),
        progress_module.TextColumn("images"),
        progress_module.TimeElapsedColumn(),
        progress_module.TimeRemainingColumn(),
    )
    with progress_module.Progress(*columns, console=console_module.Console(stderr=True)) as progress:
        task = progress.add_task("segmenting", total=count)
        yield lambda: progress.advance(task)


def _print_results(
    results: Sequence[Result], prompts: Prompts, threshold: float, output: SegmentOutput, seconds: float
) -> None:
    console: Any = require_extra("rich.console", "video").Console()
    asked = WITHOUT_WORDS if prompts.text is None else prompts.text
    for result in results:
        image = result.image
        if result.scores:
            console.print(_table(result, asked), markup=False)
        else:
            _say(
                console,
                f"{image.path}: nothing found for {asked!r}: the best score was {result.best_score:.2f}, "
                f"and only what is above {threshold:g} is shown (--threshold)",
            )
        _say(console, f"wrote {' and '.join(map(str, output.paths(image.path)))}")
    number = "1 image" if len(results) == 1 else f"{len(results)} images"
    last = f"; the last took {1000 * results[-1].seconds:.0f} ms in the network" if len(results) > 1 else ""
    _say(console, f"{number} in {seconds:.1f} s, opening the graphs and writing included{last}")


def _say(console: Any, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _table(result: Result, asked: str) -> Any:
    """Rank, score, box and area; the rank is the number in the picture."""
    image = result.image
    title = require_extra("rich.text", "video").Text(f"{image.path.name}: {len(result.scores)} found for {asked!r}")
    table = require_extra("rich.table", "video").Table(title=title)
    for heading in ("rank", "score", "box (left, top, width, height)", "area"):
        table.add_column(heading, justify="right")
    for rank, (score, box, area) in enumerate(zip(result.scores, result.boxes, result.areas, strict=True), start=1):
        x0, y0, x1, y1 = (round(float(side)) for side in box)
        sides = f"{x0}, {y0}, {x1 - x0}, {y1 - y0}"
        table.add_row(str(rank), f"{score:.2f}", sides, f"{area / (image.width * image.height):.1%}")
    return table


if __name__ == "__main__":
    sys.exit(main())
