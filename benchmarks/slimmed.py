"""onnxslim's optimisation of an export, for comparison: what a widely used graph optimiser makes of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from samonnx.errors import SamonnxError

__all__ = ["slimmed"]

PATIENCE = 900.0


def slimmed(exported: Path, path: Path) -> None:
    """Write the slimmed graph to `path`, weights beside it. onnxslim runs with its defaults in a process of its own,
    which ends with the memory that it took. Raises SamonnxError if it fails."""
    code = "import sys, onnxslim; onnxslim.slim(sys.argv[1], sys.argv[2], save_as_external_data=True)"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, str(exported), str(path)],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired:
        raise SamonnxError(f"onnxslim was not ready after {PATIENCE:.0f} s") from None
    if done.returncode or not path.exists():
        last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "it said nothing")
        raise SamonnxError(f"onnxslim failed: {last}")
