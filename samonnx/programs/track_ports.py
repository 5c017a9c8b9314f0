"""Inputs and outputs of the `track` program (DESIGN, bank contract)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from samonnx.models.bank_policies import MemoryPolicy
from samonnx.models.tracker import TrackedModel
from samonnx.programs.detect_ports import image_port
from samonnx.programs.program import Port
from samonnx.programs.track_bank import bank_layout

if TYPE_CHECKING:
    from samonnx.recipe import TrackSpec

__all__ = ["track_ports"]


def track_ports(
    model: TrackedModel, policy: MemoryPolicy, spec: TrackSpec
) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """Its inputs, and its outputs."""
    sizes = model.tracker.sizes
    o, k, s, low = spec.objects, spec.points, sizes.image_size, 4 * sizes.grid
    f32, i32, flag = "float32", "int32", "bool"
    layout = bank_layout(policy)
    bank = layout.ports(layout.tensors, policy, sizes, o)
    inputs = [
        image_port(model),
        Port(
            "frame_index", i32, (), "index of this frame; to track backwards, number the frames backwards", "0 … 2^29"
        ),
        Port("num_frames", i32, (), "length of the clip; 0 when unknown (a stream)", "0 … 2^29"),
        Port("point_coords", f32, (o, k, 2), f"x, y in pixels of the {s} x {s} image", f"0 … {s}"),
        Port(
            "point_labels",
            i32,
            (o, k),
            "1 positive, 0 negative, 2 and 3 box corners (top left, bottom right), -1 empty place",
            "-1 … 3",
        ),
        Port(
            "attend_memory",
            flag,
            (o,),
            "false takes the no-memory path (a prompted frame); an empty bank takes it by itself",
            "",
        ),
        Port("mask_prompt", f32, (o, 1, s, s), "binary mask given as prompt", "0 or 1"),
        Port(
            "mask_prompt_valid", flag, (o,), "whether the object has a mask prompt; it silences the object's points", ""
        ),
        Port(
            "prev_logits",
            f32,
            (o, 1, low, low),
            "earlier low-resolution logits of this frame, with a correction click",
            "-32 … 32",
        ),
        Port("prev_logits_valid", flag, (o,), "whether the object has earlier logits", ""),
        *bank,
    ]
    outputs = [
        Port(
            "low_res_masks",
            f32,
            (o, 1, low, low),
            f"mask logits at 4 times the grid of {sizes.grid} x {sizes.grid} cells",
            "-1024 where absent",
        ),
        Port("masks", f32, (o, 1, s, s), "mask logits at image size", "-1024 where absent"),
        Port("ious", f32, (o, 3), "predicted IoU of each candidate", "0 … 1"),
        Port("iou", f32, (o, 1), "predicted IoU of the mask taken (1 for a mask prompt)", "0 … 1"),
        Port(
            "mask_choice", i32, (o,), "candidate taken; -1: the single-mask output, or the mask prompt itself", "-1 … 2"
        ),
        Port("object_score", f32, (o, 1), "logit: the object is present in this frame", ""),
        Port("object_pointer", f32, (o, sizes.hidden_dim), "this frame's object pointer", ""),
        *(_motion_ports(o) if policy.chooses_by_motion else ()),
        *(replace(port, name=f"next_{port.name}") for port in bank),
    ]
    return tuple(inputs), tuple(outputs)


def _motion_ports(objects: int) -> tuple[Port, ...]:
    return (
        Port(
            "phase",
            "int32",
            (objects,),
            "of the Kalman filter: 0 untouched (no choice among candidates), 1 start, 2 warm-up, 3 stable",
            "0 … 3",
        ),
        Port(
            "motion_score",
            "float32",
            (objects,),
            "overlap (IoU) of the box of the mask taken with the predicted box; 0 unless the phase is stable",
            "0 … 1",
        ),
    )
