"""`samonnx track DIR VIDEO`: track prompted objects through a video file and write overlays and masks.

Reads with PyAV or Pillow, runs the artifact in ONNX Runtime, needs no PyTorch. Outputs appear when all is done.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from samonnx.exit_codes import ExitCode, run_command
from samonnx.plain_warnings import plain_warnings
from samonnx.runtime.extras import require_extra
from samonnx.runtime.frame_result import Search
from samonnx.runtime.object_tracker import ObjectTracker, TrackedFrame, open_tracker
from samonnx.runtime.overlay import draw_overlay
from samonnx.runtime.prompts import PromptError, Prompts
from samonnx.runtime.video import FrameSource, VideoError, open_frames
from samonnx.runtime.video_writer import FrameWriter, ImageFolderWriter, frame_writer
from samonnx.runtime.xmem_proportions import proportions_note
from samonnx.track_arguments import TrackArguments, check_boxes, make_prompts, parse_arguments

__all__ = ["describe_search", "main"]

PromptsByFrame = Mapping[int, Mapping[int, Prompts]]


@dataclass(frozen=True)
class ObjectSummary:
    """What became of one object: frames in which it was followed, frames in which it was seen, mean area in pixels."""

    followed: int = 0
    present: int = 0
    pixels: int = 0
    prompted: tuple[int, ...] = ()

    def with_frame(self, result: TrackedFrame, position: int) -> ObjectSummary:
        number = result.objects[position]
        prompted = (*self.prompted, result.frame_index) if number in result.prompted else self.prompted
        return replace(
            self,
            followed=self.followed + 1,
            present=self.present + int(result.present[position]),
            pixels=self.pixels + int(result.masks[position].sum()),
            prompted=prompted,
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run with these arguments (the process's own by default); returns an ExitCode."""
    try:
        arguments = parse_arguments(argv)
    except SystemExit as exit_:  # argparse has written usage and reason, or the help
        return int(exit_.code or 0)
    return run_command(lambda: _track(arguments))


def _track(arguments: TrackArguments) -> int:
    source = open_frames(arguments.video)
    if arguments.output is not None and arguments.output.absolute() == arguments.video.absolute():
        raise VideoError(f"the output {arguments.output} is the input; give another name")
    prompts = make_prompts(arguments.prompts)
    count = _count(source, arguments.max_frames)
    tracker = open_tracker(
        arguments.folder,
        target=arguments.target,
        threads=arguments.threads,
        providers=arguments.providers,
        num_frames=count or 0,
        kind=source.kind,
        threshold=arguments.threshold,
        vocabulary=arguments.vocabulary,
    )
    if tracker.manifest.xmem is not None and not arguments.quiet:
        note = proportions_note(tracker.manifest.xmem, width=source.width, height=source.height)
        if note is not None:
            console = require_extra("rich.console", "video").Console(stderr=True)
            console.print(f"samonnx: {note}", highlight=False, markup=False, soft_wrap=True)
    check_boxes(arguments.prompts, width=source.width, height=source.height)
    _check_prompts(tracker, prompts, source, count)
    frames = source if arguments.max_frames is None else islice(source, arguments.max_frames)
    started = time.perf_counter()
    summaries: dict[int, ObjectSummary] = {}
    searches: list[str] = []
    with ExitStack() as stack:
        stack.enter_context(plain_warnings())
        overlay = stack.enter_context(frame_writer(arguments.output, source.rate)) if arguments.output else None
        masks = stack.enter_context(ImageFolderWriter(arguments.masks_dir)) if arguments.masks_dir else None
        advance = stack.enter_context(_progress(count, quiet=arguments.quiet))
        for frame, result in _pairs(frames, lambda again: tracker.track(again, prompts)):
            _write(frame, result, prompts, overlay, masks)
            searches += [describe_search(search, result.frame_index, prompts) for search in result.searches]
            for position, number in enumerate(result.objects):
                summaries[number] = summaries.get(number, ObjectSummary()).with_frame(result, position)
            advance()
    if not arguments.quiet:
        _print_summary(summaries, searches, arguments, source, tracker.next_frame, time.perf_counter() - started)
    return int(ExitCode.OK)


def _count(source: FrameSource, limit: int | None) -> int | None:
    """Frames that will be tracked, as far as the file tells."""
    if source.count is None or limit is None:
        return source.count
    return min(source.count, limit)


def _check_prompts(tracker: ObjectTracker, prompts: PromptsByFrame, source: FrameSource, count: int | None) -> None:
    """All that can be known to be wrong before the first frame is run."""
    for index, objects in prompts.items():
        if count is not None and index >= count:
            raise PromptError(
                f"there is a prompt on frame {index}, but {source.path} has {count} frames (0 to {count - 1})"
            )
        tracker.check_prompts(objects, width=source.width, height=source.height)


def _pairs(
    frames: Iterable[npt.NDArray[np.uint8]],
    track: Callable[[Iterable[npt.NDArray[np.uint8]]], Iterable[TrackedFrame]],
) -> Iterator[tuple[npt.NDArray[np.uint8], TrackedFrame]]:
    """Each frame beside its result; frames are decoded once, one at a time."""
    held: list[npt.NDArray[np.uint8]] = []

    def remembered() -> Iterator[npt.NDArray[np.uint8]]:
        for frame in frames:
            held[:] = [frame]
            yield frame

    for result in track(remembered()):
        yield held[0], result


def _write(
    frame: npt.NDArray[np.uint8],
    result: TrackedFrame,
    prompts: PromptsByFrame,
    overlay: FrameWriter | None,
    masks: ImageFolderWriter | None,
) -> None:
    if overlay is not None:
        here = prompts.get(result.frame_index, {})
        labels = [f"{number}  {score:.2f}" for number, score in zip(result.objects, result.scores, strict=True)]
        overlay.write(draw_overlay(frame, result.masks, labels=labels, prompts=tuple(here.values())))
    if masks is not None:
        for number, mask in zip(result.objects, result.masks, strict=True):
            name = f"frame_{result.frame_index:05d}_object_{number}.png"
            masks.write_named(name, mask.astype(np.uint8) * np.uint8(255))


@contextmanager
def _progress(count: int | None, *, quiet: bool) -> Iterator[Callable[[], None]]:
    """A progress bar on stderr; gives the function that moves it on by one frame."""
    if quiet:
        yield lambda: None
        return
    progress_module, console_module = require_extra("rich.progress", "video"), require_extra("rich.console", "video")
    columns = (
        progress_module.TextColumn("tracking"),
        progress_module.BarColumn(),
        progress_module.MofNCompleteColumn(),
        progress_module.TextColumn("frames"),
        progress_module.TimeElapsedColumn(),
        progress_module.TimeRemainingColumn(),
    )
    with progress_module.Progress(*columns, console=console_module.Console(stderr=True)) as progress:
        task = progress.add_task("tracking", total=count)
        yield lambda: progress.advance(task)


def describe_search(search: Search, frame_index: int, prompts: PromptsByFrame) -> str:
    """One line on what words or exemplars found on a frame."""
    text = prompts[frame_index][search.number].text
    asked = "the exemplars" if text is None else repr(text)
    where = f"frame {frame_index}, {asked}:"
    left_out = f"; {search.known} tracked already" if search.known else ""
    left_out += f"; {search.empty} without a pixel in the mask" if search.empty else ""
    if search.objects:
        found = ", ".join(f"{n} ({score:.2f})" for n, score in zip(search.objects, search.scores, strict=True))
        return f"{where} found object {found}{left_out}"
    if left_out:
        return f"{where} nothing new{left_out}"
    return f"{where} nothing found, the best score was {search.best_score:.2f} (--threshold)"


def _print_summary(
    summaries: Mapping[int, ObjectSummary],
    searches: Sequence[str],
    arguments: TrackArguments,
    source: FrameSource,
    frames: int,
    seconds: float,
) -> None:
    table: Any = require_extra("rich.table", "video").Table(
        title=f"{source.path.name}: {frames} frame{'' if frames == 1 else 's'}, {source.width} x {source.height}"
    )
    for heading in ("object", "prompted on frame", "tracked", "present", "mean area"):
        table.add_column(heading, justify="right")
    for number, summary in summaries.items():
        area = summary.pixels / (summary.followed * source.width * source.height)
        prompted = ", ".join(map(str, summary.prompted))
        table.add_row(str(number), prompted, str(summary.followed), str(summary.present), f"{area:.1%}")
    console = require_extra("rich.console", "video").Console()
    console.print(table)
    for line in searches:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    written = [str(path) for path in (arguments.output, arguments.masks_dir) if path is not None and path.exists()]
    rate = f"{1000 * seconds / max(frames, 1):.0f} ms a frame, reading and writing included"
    console.print(f"wrote {' and '.join(written) or 'nothing'}; {rate}", highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
