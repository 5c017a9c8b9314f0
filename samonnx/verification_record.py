"""The record of a verification (verification.json): every error that was measured, beside its tolerance.

Errors are measured against eager PyTorch on the machine that compiles, whose last bits differ between CPUs and even
between processes; so they are kept apart from the manifest, which is the same wherever a recipe is compiled.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from samonnx.engines import verifying_engine
from samonnx.verify import Comparison

__all__ = ["verification_record"]


def verification_record(figures: Sequence[tuple[str, str, Comparison]]) -> str:
    """JSON, one object a figure, in the order of `figures` ((program, target, figure)): `program`, `target`, `engine`,
    `what`, `largest_error` (over the reference's largest magnitude, two digits) and `tolerance`."""
    rows = [
        {
            "program": program,
            "target": target,
            "engine": verifying_engine(target),
            "what": figure.what,
            "largest_error": float(f"{figure.largest_error:.1e}"),
            "tolerance": figure.tolerance,
        }
        for program, target, figure in figures
    ]
    return json.dumps(rows, indent=2, ensure_ascii=True, allow_nan=False) + "\n"
