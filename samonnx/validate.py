"""`samonnx validate DIR`: the compiled `track` graphs against the eager reference, frame by frame.

The graph side is the runtime as users run it; the reference is the PyTorch model, rebuilt from the artifact's recipe.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

from samonnx.errors import VerificationError
from samonnx.exit_codes import ExitCode, run_command
from samonnx.plain_warnings import plain_warnings
from samonnx.recipe import Recipe
from samonnx.result_file import check_output, replace_file
from samonnx.runtime import typed_json
from samonnx.runtime.extras import require_extra
from samonnx.runtime.manifest import Manifest
from samonnx.runtime.session import Session, choose_target
from samonnx.track_arguments import check_boxes
from samonnx.validate_arguments import ValidateArguments, parse_arguments, prompts_by_frame
from samonnx.validation import FrameFigures, Validation
from samonnx.validation_clip import Clip, synthetic_clip, video_clip
from samonnx.validation_plot import check_plotting, plot_png
from samonnx.validation_probes import ProbedSession, map_ports
from samonnx.validation_reference import eager_model, recipe_of
from samonnx.validation_report import print_table, verdict
from samonnx.validation_run import Comparer
from samonnx.validation_sides import EagerSide, GraphSide

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run with these arguments (the process's own by default); returns an ExitCode."""
    try:
        arguments = parse_arguments(argv)
    except SystemExit as exit_:  # argparse has written usage and reason, or the help
        return int(exit_.code or 0)
    return run_command(lambda: _validate(arguments))


def _validate(arguments: ValidateArguments) -> int:
    manifest = Manifest.load(arguments.folder)
    manifest.tracking()
    _check_outputs(arguments)
    recipe = recipe_of(arguments.folder, manifest, arguments.recipe)
    clip = _clip(arguments, manifest, recipe)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    with plain_warnings():
        graph = _graph_side(arguments, manifest, clip)
        with _progress(clip, quiet=arguments.quiet) as progress:
            progress("building the reference", 0)
            model = eager_model(recipe, manifest, arguments.checkpoint)
            eager = EagerSide(model, recipe.memory, clip.count or 0)
            frames = []
            progress("comparing", clip.first)
            for figures in Comparer(manifest, graph, eager, from_reference=arguments.from_reference).run(clip):
                frames.append(figures)
                progress("comparing", 1)
    validation = _result(arguments, manifest, clip, frames)
    if not arguments.quiet:
        print_table(validation)
    if arguments.json is not None:
        replace_file(arguments.json, typed_json.dump(validation).encode())
    if arguments.plot is not None:
        replace_file(arguments.plot, plot_png(validation))
    if not validation.passed:
        raise VerificationError(verdict(validation))
    return int(ExitCode.OK)


def _check_outputs(arguments: ValidateArguments) -> None:
    """All that would be in the way of the results is said before anything is run."""
    if not arguments.quiet:
        require_extra("rich.console", "video")
    for path in (arguments.json, arguments.plot):
        if path is not None:
            check_output(path, arguments.folder)
    if arguments.plot is not None:
        check_plotting()


def _clip(arguments: ValidateArguments, manifest: Manifest, recipe: Recipe) -> Clip:
    prompts = prompts_by_frame(arguments.prompts)
    if arguments.video is None:
        clip = synthetic_clip(manifest.seeing().size, arguments.frames or recipe.verify.frames, prompts)
    else:
        clip = video_clip(arguments.video, arguments.frames, prompts)
    check_boxes(arguments.prompts, width=clip.width, height=clip.height)
    clip.check(manifest)
    return clip


def _graph_side(arguments: ValidateArguments, manifest: Manifest, clip: Clip) -> GraphSide:
    folder, target, threads, providers = arguments.folder, arguments.target, arguments.threads, arguments.providers
    ports = map_ports(folder, manifest, target) if arguments.maps == "graph" else None

    def open_session(program: str) -> Session:
        if ports is None:
            return Session(folder, program, target=target, threads=threads, providers=providers, manifest=manifest)
        return ProbedSession(
            folder, program, ports=ports, target=target, threads=threads, providers=providers, manifest=manifest
        )

    return GraphSide(manifest, open_session, clip.count or 0, ports)


def _result(arguments: ValidateArguments, manifest: Manifest, clip: Clip, frames: Sequence[FrameFigures]) -> Validation:
    return Validation(
        recipe=manifest.recipe,
        recipe_digest=manifest.recipe_digest,
        weights_source=manifest.weights.source,
        weights_digest=manifest.weights.digest,
        target=choose_target(manifest.program("track"), arguments.target),
        providers=arguments.providers or ("cpu",),
        clip=clip.name,
        width=clip.width,
        height=clip.height,
        num_frames=clip.count or 0,
        from_reference=arguments.from_reference,
        maps=arguments.maps,
        max_error=arguments.max_error,
        min_iou=arguments.min_iou,
        frames=tuple(frames),
        passed=not any(frame.problems(arguments.max_error, arguments.min_iou) for frame in frames),
    )


@contextmanager
def _progress(clip: Clip, *, quiet: bool) -> Iterator[Callable[[str, int], None]]:
    """A progress bar on stderr; gives what moves it on by so many frames."""
    if quiet:
        yield lambda what, frames: None
        return
    progress_module, console_module = require_extra("rich.progress", "video"), require_extra("rich.console", "video")
    columns = (
        progress_module.TextColumn("{task.description}", markup=False),
        progress_module.BarColumn(),
        progress_module.MofNCompleteColumn(),
        progress_module.TextColumn("frames"),
        progress_module.TimeElapsedColumn(),
        progress_module.TimeRemainingColumn(),
    )
    with progress_module.Progress(*columns, console=console_module.Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=clip.count)
        yield lambda what, frames: progress.update(task, description=what, advance=frames)


if __name__ == "__main__":
    sys.exit(main())
