"""Measures how far float32 rounding alone moves each tensor of a reference clip, and writes it beside the clip.

    python -m tests.full_size.measure_rounding golden/efficientsam3_m0_9/tracker_click.npz

The eager reference tracks the clip twice: with the image encoder in float32, and with the encoder in float64 (its
maps rounded to float32 at the end). Everything after the encoder is the same float32 code, and both start from the
memory of frame 0 that the original project's tensors show (`settle_threshold`). The difference is what rounding
inside the image encoder does to the original network with these weights: no float32 implementation, the original on
another CPU included, can be expected to be closer to the reference.
"""

from __future__ import annotations

import copy
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch

from samonnx.build_model import build_model
from samonnx.models.efficientsam3 import EfficientSAM3
from samonnx.models.reference_tracker import FramePrompt, FrameRecord, ImageFeatures, ReferenceTracker, encode_image
from samonnx.recipe import load_recipe
from samonnx.seeded import seeded_frame
from tests.full_size.reference_clip import settle_threshold

RECIPE = Path(__file__).parents[2] / "recipes" / "efficientsam3_m0_9.yaml"


def tensors(record: FrameRecord) -> dict[str, torch.Tensor]:
    """The tensors of a frame under the names of the reference files."""
    output = record.output
    named = {
        "object_score_logits": output.object_score,
        "obj_ptr": output.pointer,
        "ious": output.ious,
        "low_res_masks": output.low_res_masks,
        "maskmem_features": record.memory,
    }
    return named if record.conditioned is None else named | {"pix_feat_with_mem": record.conditioned}


def rounding(clip: Path) -> dict[str, dict[str, float]]:
    """Frame ("07") → tensor → largest difference between the two runs over the largest magnitude."""
    reference = np.load(clip)
    seed = int(reference["meta/weights_seed"][0])
    model = cast(EfficientSAM3, build_model(load_recipe(RECIPE, [f"weights.seed={seed}"])).module)
    exact = copy.deepcopy(model).double()
    frames = int(reference["meta/num_frames"][0])
    trackers = {kind: ReferenceTracker(model, 1, 6, frames) for kind in ("float32", "float64")}
    coords, labels = (
        torch.from_numpy(reference["meta/point_coords"][0]),
        torch.from_numpy(reference["meta/point_labels"][0]),
    )
    found: dict[str, dict[str, float]] = {}
    with torch.inference_mode():
        for t in range(frames):
            image = torch.from_numpy((seeded_frame(t, 1008)[None] - np.float32(0.5)) / np.float32(0.5))
            wide = encode_image(exact, image.double())
            maps = {
                "float32": encode_image(model, image),
                "float64": ImageFeatures(wide.high_res_0.float(), wide.high_res_1.float(), wide.features.float()),
            }
            records = {}
            for kind, tracker in trackers.items():
                records[kind] = tracker.step(t, maps[kind], FramePrompt(coords, labels) if t == 0 else None)
                if t == 0:
                    output = records[kind].output
                    memory, _ = settle_threshold(
                        model,
                        maps[kind].features.numpy(),
                        output.masks.numpy(),
                        output.object_score.numpy(),
                        reference["frame00/maskmem_features_s4"],
                        4,
                    )
                    tracker.conditioning[0] = replace(records[kind], memory=torch.from_numpy(memory))
                    records[kind] = tracker.conditioning[0]
            pair = tensors(records["float32"]), tensors(records["float64"])
            found[f"{t:02d}"] = {
                name: float(f"{float((pair[0][name] - pair[1][name]).abs().max() / pair[1][name].abs().max()):.1e}")
                for name in pair[0]
            }
            sys.stderr.write(f"frame {t:02d}: {found[f'{t:02d}']}\n")
    return found


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        path = Path(argument)
        text = json.dumps(rounding(path), indent=1, sort_keys=True) + "\n"
        path.with_name(f"rounding_{path.stem}.json").write_text(text)
