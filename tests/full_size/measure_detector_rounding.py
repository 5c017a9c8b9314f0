"""Measures how far float32 rounding inside the image encoder moves each stage of a detector reference, and writes it
beside the reference.

    python -m tests.full_size.measure_detector_rounding golden/efficientsam3_m0_9/detector_text_plain.npz

The eager detector runs twice, with the trunk in float32 and in float64; everything after it is the same float32 code.
With the plain rule for weights attention is a saturated arg-max (NOTES.md, section 1.1), and rounding decides.
"""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

from torch import Tensor, nn

from .detector_stages import Reference, eager_stages, figures, reference_model, taken


class _Wide(nn.Module):
    """A trunk that computes in float64."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = copy.deepcopy(trunk).double()
        self.model = self.trunk.get_submodule("model")

    def forward(self, image: Tensor) -> Tensor:
        trunk_map: Tensor = self.trunk(image.double()).float()
        return trunk_map


def rounding(path: Path) -> dict[str, float]:
    """Name → largest difference between the two runs over the largest magnitude."""
    reference = Reference(path)
    model = reference_model(reference)
    feeds = reference.feeds(boxes=4, points=4)
    narrow = eager_stages(model, feeds)
    backbone = model.detector.backbone.vision_backbone
    backbone.trunk = _Wide(backbone.trunk)
    wide = eager_stages(model, feeds)
    expected = {name: part for name in reference.tensors if (part := taken(name, wide)) is not None}
    return {name: float(f"{error:.1e}") for name, error in figures(expected, narrow).items()}


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        path = Path(argument)
        text = json.dumps(rounding(path), indent=1, sort_keys=True) + "\n"
        path.with_name(f"rounding_{path.stem}.json").write_text(text)
