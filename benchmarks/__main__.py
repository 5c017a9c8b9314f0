"""`python -m benchmarks NAME …`: finds the benchmark and hands over to its module."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from samonnx.exit_codes import ExitCode, run_command

BENCHMARKS: Mapping[str, str] = MappingProxyType(
    {
        "encode": "the image encoder of tracking: eager PyTorch, exports in ONNX Runtime and OpenVINO, compiled graphs",
        "track": "one tracking step: the same variants",
        "segment": "image, words and a box to detections, and the parts alone: the same variants",
        "masks": "automatic masks of one image: time by stage and peak memory of the presets",
        "passes": "what each pass is worth: a tracking step without it and with it",
        "sam": "SAM's programs: eager PyTorch as the original computes and as here, compiled graphs",
        "xmem": "a frame of XMem with full memories: eager PyTorch, compiled graphs",
        "optimize": "what `samonnx optimize` makes of other exporters' graphs: nodes, errors, time",
        "curves": "time of a compiled tracking step against slots, objects and image size",
    }
)
"""Name of each benchmark (its module is `benchmarks.<name>`) and what it measures."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one benchmark and return its exit code, an `ExitCode`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    wants_help = arguments[:1] in (["-h"], ["--help"])
    if wants_help or not arguments or arguments[0] not in BENCHMARKS:
        lines = "\n".join(f"  {name:<8} {summary}" for name, summary in BENCHMARKS.items())
        text = f"usage: python -m benchmarks NAME [ARGUMENTS]\n\nbenchmarks:\n{lines}\n"
        (sys.stdout if wants_help else sys.stderr).write(text)
        return int(ExitCode.OK if wants_help else ExitCode.USAGE)
    name, *rest = arguments
    return run_command(lambda: int(importlib.import_module(f"benchmarks.{name}").main(rest)))


if __name__ == "__main__":
    sys.exit(main())
