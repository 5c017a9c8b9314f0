"""Measures how far float32 rounding moves each tensor of a detector's reference file, and writes it beside the file.

    python -m tests.full_size.measure_detector_rounding golden/efficientsam3_m0_9/detector_text_plain.npz

The eager detector runs in float64, which gives the same on every CPU, and in float32 with two kinds of kernels. A
tensor's error over that of the trunk's map says how much the network magnifies rounding on the way from there. The
reference file is a float32 run too: the distance of its trunk map from the float64 one, times the larger of the two
factors, is the error that its own rounding can be expected to have left in each of its tensors.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from .detector_stages import Reference, eager_stages, exact_stages, figures, reference_model, taken

TRUNK = "image/trunk_c3_s9"


def rounding(path: Path) -> dict[str, float]:
    """Name → expected error of the reference's tensor, over its largest magnitude."""
    reference = Reference(path)
    model = reference_model(reference)
    feeds = reference.feeds(boxes=4, points=4)
    exact = exact_stages(model, feeds)
    expected = {name: part for name in reference.tensors if (part := taken(name, exact)) is not None}
    draws = [figures(expected, eager_stages(model, feeds))]
    with torch.backends.mkldnn.flags(enabled=False):
        draws.append(figures(expected, eager_stages(model, feeds)))
    unit = figures(reference.tensors, exact)[TRUNK]
    return {name: float(f"{max(draw[name] / draw[TRUNK] for draw in draws) * unit:.1e}") for name in draws[0]}


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        path = Path(argument)
        text = json.dumps(rounding(path), indent=1, sort_keys=True) + "\n"
        path.with_name(f"rounding_{path.stem}.json").write_text(text)
