"""`samonnx golden record|check`: write down what an artifact computes, and see later whether it still does.

For anyone's CI: compile, `check`, and the exit code says whether a number moved further than it may.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from samonnx.exit_codes import ExitCode, run_command
from samonnx.golden_file import TOLERANCE, GoldenError, GoldenRecord, Movement, movements, require_same_origin
from samonnx.golden_run import run_target
from samonnx.runtime.manifest import MANIFEST_NAME, Manifest

__all__ = ["check", "main", "record", "show"]

_SEED = 0
_LOG_WIDTH = 140
_EXAMPLE = """\
example:
  samonnx golden record recipes/efficientsam3_tiny.yaml
  samonnx golden check dist/efficientsam3_tiny

exit codes: 0 nothing moved further than it may; 3 something did; 1 an error, explained on stderr; 2 wrong usage
"""


@dataclass(frozen=True)
class _Arguments:
    action: str
    artifact: Path
    """An artifact folder, or a recipe."""
    file: Path | None
    target: str | None
    steps: int
    tolerance: float


def main(argv: Sequence[str] | None = None) -> int:
    """Run with these arguments (the process's own by default); returns an ExitCode."""
    try:
        arguments = _parsed(argv)
    except SystemExit as exit_:  # argparse has written usage and reason, or the help
        return int(exit_.code or 0)
    return run_command(lambda: _run(arguments))


def record(
    folder: Path, file: Path, *, target: str | None = None, steps: int = 3, tolerance: float = TOLERANCE
) -> GoldenRecord:
    """Run every program of the artifact `folder` for one target (by default `onnx`, if it is there); write `file`.

    Raises SamonnxError: no artifact, no such target, a file that cannot be written.
    """
    manifest = Manifest.load(folder)
    there = _targets(manifest)
    chosen = _known_target(manifest, target or ("onnx" if "onnx" in there else there[0]))
    programs = tuple(program.name for program in manifest.programs if chosen in program.files)
    found = run_target(folder, chosen, programs, steps, _SEED).with_tolerance(tolerance)
    found.save(file)
    return found


def check(folder: Path, file: Path, *, target: str | None = None) -> dict[str, tuple[Movement, ...]]:
    """Run the recorded programs again, for each target of the artifact or the one named: target → movements.

    Raises SamonnxError: no artifact, no golden file or a damaged one, one of another recipe or other weights.
    """
    manifest, recorded = Manifest.load(folder), GoldenRecord.load(file)
    require_same_origin(recorded, manifest)
    missing = [name for name in recorded.programs if not manifest.has_program(name)]
    if missing:
        raise GoldenError(
            f"{folder} has no program {', '.join(missing)}, which {file} has records of; compile it again"
        )
    targets = _targets(manifest) if target is None else (_known_target(manifest, target),)
    return {
        name: movements(recorded, run_target(folder, name, recorded.programs, recorded.steps, recorded.seed))
        for name in targets
    }


def _run(arguments: _Arguments) -> int:
    folder = _artifact_folder(arguments.artifact)
    file = arguments.file or Path("golden") / f"{Manifest.load(folder).recipe}.golden.npz"
    if arguments.action == "record":
        written = record(folder, file, target=arguments.target, steps=arguments.steps, tolerance=arguments.tolerance)
        sys.stdout.write(f"{file}: {len(written.outputs)} outputs recorded, {file.stat().st_size:,} bytes\n")
        return int(ExitCode.OK)
    moved = check(folder, file, target=arguments.target)
    show(moved)
    has_failed = any(movement.exceeds for target in moved.values() for movement in target)
    return int(ExitCode.CHECK_FAILED if has_failed else ExitCode.OK)


def show(moved: dict[str, tuple[Movement, ...]]) -> None:
    """Print what moved, and how much did not."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Moved since the record, as a share of the recorded largest magnitude", title_justify="left")
    for heading in ("target", "program", "step", "output"):
        table.add_column(heading, overflow="fold")
    for heading in ("moved", "tolerance"):
        table.add_column(heading, justify="right")
    for heading in ("verdict", "remark"):
        table.add_column(heading)
    for target, of_target in moved.items():
        for m in of_target:
            if not m.is_identical:
                where = (target, m.record.program, str(m.record.step), m.record.output)
                verdict = "[bold red]EXCEEDS[/]" if m.exceeds else "[green]within[/]"
                table.add_row(*where, f"{m.moved:.1e}", f"{m.record.tolerance:.0e}", verdict, m.remark)
    # A log has no width of its own; 80 columns would cut the names of outputs.
    console = Console(width=None if sys.stdout.isatty() else _LOG_WIDTH)
    if table.rows:
        console.print(table)
    for target, of_target in moved.items():
        same, over = sum(m.is_identical for m in of_target), sum(m.exceeds for m in of_target)
        within = len(of_target) - same - over
        console.print(
            f"{target}: {len(of_target)} outputs, {same} bit-identical, {within} within tolerance, {over} beyond it",
            highlight=False,
        )


def _artifact_folder(artifact: Path) -> Path:
    """The folder itself; of a recipe, `dist/NAME`, compiled first if it is not there."""
    if artifact.suffix not in (".yaml", ".yml"):
        return artifact
    # Only here: with a folder, this command needs no torch.
    from samonnx.compile import CompileOptions, compile_recipe
    from samonnx.recipe import load_recipe

    recipe = load_recipe(artifact)
    folder = Path("dist") / recipe.name
    if not (folder / MANIFEST_NAME).is_file():
        return compile_recipe(artifact, CompileOptions(output=folder))
    if Manifest.load(folder).recipe_digest != recipe.digest:
        raise GoldenError(
            f"{folder} was not compiled from {artifact} as it is now (the recipe's digest differs); "
            f"run `samonnx compile {artifact}`, or name the artifact folder instead of the recipe"
        )
    return folder


def _targets(manifest: Manifest) -> tuple[str, ...]:
    targets = tuple(sorted({target for program in manifest.programs for target in program.files}))
    if not targets:
        raise GoldenError(f"the artifact of recipe {manifest.recipe!r} holds no program; compile it again")
    return targets


def _known_target(manifest: Manifest, target: str) -> str:
    if target not in _targets(manifest):
        raise GoldenError(
            f"--target {target}: the artifact has no such target; it has: {', '.join(_targets(manifest))}"
        )
    return target


def _parsed(argv: Sequence[str] | None) -> _Arguments:
    parser = argparse.ArgumentParser(
        prog="samonnx golden",
        description="Record what an artifact computes on made-up inputs, or check that it still does.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="record|check")
    for action, text in (("record", "write the golden file"), ("check", "compare with the golden file")):
        one = actions.add_parser(action, help=text, description=text.capitalize() + ".")
        one.add_argument(
            "artifact", type=Path, metavar="DIR_OR_RECIPE", help="artifact folder, or a recipe (then dist/NAME is used)"
        )
        one.add_argument("--file", type=Path, help="golden file (default: golden/NAME.golden.npz)")
        default = "onnx if there is one" if action == "record" else "all there are"
        one.add_argument("--target", help=f"graphs to run (default: {default})")
        if action == "record":
            one.add_argument("--steps", type=_positive, default=3, help="frames for programs with a bank (default: 3)")
            one.add_argument(
                "--tolerance",
                type=_share,
                default=TOLERANCE,
                help=f"how far outputs may move, as a share of their largest magnitude (default: {TOLERANCE:g})",
            )
    return _Arguments(**{"steps": 0, "tolerance": 0.0, **vars(parser.parse_args(argv))})


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, found {text!r}")
    return int(text)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to below 1, found {text!r}")
    return value


if __name__ == "__main__":
    raise SystemExit(main())
