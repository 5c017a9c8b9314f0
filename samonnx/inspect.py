"""`samonnx inspect file.onnx`: what an ONNX file holds; and a picture of a part of its graph."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from samonnx.exit_codes import ExitCode, run_command
from samonnx.inspect_facts import InspectError, model_facts, read_model
from samonnx.inspect_region import choose_region
from samonnx.inspect_report import print_facts
from samonnx.inspect_svg import draw_region
from samonnx.number_arguments import index
from samonnx.result_file import replace_file

__all__ = ["main"]

EXAMPLE = """\
examples:

  samonnx inspect dist/efficientsam3_m0_9/track.onnx --top 20
  samonnx inspect model.onnx --json facts.json
  samonnx inspect model.onnx --svg block.svg --from /layers.3/Add_output_0 --to /layers.4/Add_output_0

The picture shows all nodes on paths from one place to the other, each the name of a value or of a node; without --from
it begins at the inputs, without --to it ends at the outputs.

exit codes: 0 done; 1 an error, explained on stderr; 2 wrong usage; 130 interrupted
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run with these arguments (the process's own by default); returns an ExitCode."""
    parser = _parser()
    try:
        arguments = parser.parse_args(argv)
        if arguments.svg is None and (arguments.start is not None or arguments.end is not None):
            parser.error("--from and --to choose what is drawn: give --svg FILE too")
    except SystemExit as exit_:  # argparse has written usage and reason, or the help
        return int(exit_.code or 0)
    return run_command(lambda: _inspect(arguments))


def _inspect(arguments: argparse.Namespace) -> int:
    for path in (arguments.json, arguments.svg):
        _check_output(path, arguments.source)
    model = read_model(arguments.source)
    facts = model_facts(model, arguments.source, arguments.top)
    picture = None
    if arguments.svg is not None:
        region = choose_region(model.graph, arguments.start, arguments.end)
        picture = draw_region(region, _title(arguments))
    console = Console()
    print_facts(facts, console)
    if arguments.json is not None:
        replace_file(arguments.json, facts.to_json().encode())
    if picture is not None:
        replace_file(arguments.svg, picture.encode())
    return int(ExitCode.OK)


def _title(arguments: argparse.Namespace) -> str:
    places = [f"{word} {name}" for word, name in (("from", arguments.start), ("to", arguments.end)) if name is not None]
    return " ".join([arguments.source.name, *places])


def _check_output(path: Path | None, source: Path) -> None:
    if path is None:
        return
    if not path.absolute().parent.is_dir():
        raise InspectError(f"cannot write {path}: folder {path.absolute().parent} does not exist")
    if path.is_dir() or (path.exists() and source.exists() and path.samefile(source)):
        raise InspectError(f"cannot write {path}: it is {'a folder' if path.is_dir() else 'the graph itself'}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="samonnx inspect",
        description="Print what an ONNX file holds, and draw a part of its graph.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("source", type=Path, metavar="FILE.onnx")
    parser.add_argument("--top", type=index, default=10, metavar="N", help="largest tensors to list (default: 10)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that is printed")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw the graph, or a part of it")
    parser.add_argument("--from", dest="start", metavar="NAME", help="a value or a node at which the picture begins")
    parser.add_argument("--to", dest="end", metavar="NAME", help="a value or a node at which it ends")
    return parser


if __name__ == "__main__":
    sys.exit(main())
