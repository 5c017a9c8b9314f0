"""A small artifact folder whose `encode_image` and `predict` are made by hand: the real port names, arithmetic one can
follow.

    features = mean colour of the image's cells
    push     = 1 for a point on the object, -1 for one that is not, 0.5 for a corner of a box, 0 for an empty place
    logits   = sum over places of push * 10 * (RADIUS + grown - distance to the place) + earlier logits + mean feature
    iou      = level + x of the first place / 1000

`grown` and `level` differ between the three candidates (GROWN, LEVELS); the single mask is the first candidate. `rows`
prompts go into a call, any number for None. `sam2`: stretched instead of padded, and one map more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
from onnx import helper, numpy_helper

from samonnx.runtime.manifest import Manifest, PortInfo, PreprocessingInfo, ProgramInfo, WeightsInfo

SIZE, GRID, LOW, PLACES = 64, 4, 16, 4
RADIUS = 10.0
GROWN = (0.0, 7.0, -4.0)
LEVELS = (0.85, 0.9, 0.8)
PROGRAMS = ("encode_image", "predict", "predict@points")

ENCODE_IMAGE = """
    grey = ReduceMean <keepdims = 1> (image, axis1)
    features = AveragePool <kernel_shape = [16, 16], strides = [16, 16]> (grey)
"""
FINER = """
    high_res_0 = AveragePool <kernel_shape = [4, 4], strides = [4, 4]> (grey)
"""
POINTS = """
    at_x = Slice (point_coords, n0, n1, axis2)
    at_y = Slice (point_coords, n1, n2, axis2)
    x4 = Unsqueeze (at_x, axis3)
    y4 = Unsqueeze (at_y, axis3)
    dx = Sub (cell_x, x4)
    dy = Sub (cell_y, y4)
    dx2 = Mul (dx, dx)
    dy2 = Mul (dy, dy)
    square = Add (dx2, dy2)
    distance = Sqrt (square)
    is_on = Equal (point_labels, on_object)
    is_off = Equal (point_labels, off_object)
    is_corner = Greater (point_labels, on_object)
    on_f = Cast <to = 1> (is_on)
    off_f = Cast <to = 1> (is_off)
    corner_f = Cast <to = 1> (is_corner)
    half_corner = Mul (corner_f, half)
    on_or_corner = Add (on_f, half_corner)
    push = Sub (on_or_corner, off_f)
    push3 = Unsqueeze (push, axis2)
    push4 = Unsqueeze (push3, axis3)
    mean = ReduceMean <keepdims = 0> (features, all_axes)
"""
WITHOUT_MASKS = """
    earlier = Identity (nothing)
"""
WITH_MASKS = """
    valid_f = Cast <to = 1> (mask_input_valid)
    valid4 = Unsqueeze (valid_f, axes123)
    earlier = Mul (mask_input, valid4)
"""
CANDIDATE = """
    inside_{m} = Sub (radius_{m}, distance)
    steep_{m} = Mul (inside_{m}, ten)
    pushed_{m} = Mul (steep_{m}, push4)
    summed_{m} = ReduceSum <keepdims = 1> (pushed_{m}, axis1)
    carried_{m} = Add (summed_{m}, earlier)
    mask_{m} = Add (carried_{m}, mean)
"""
RESULTS = """
    low_res_masks = Concat <axis = 1> (mask_0, mask_1, mask_2)
    first_x = Slice (point_coords, n00, n11, axes12)
    first_x2 = Squeeze (first_x, axis2)
    share = Mul (first_x2, thousandth)
    ious = Add (levels, share)
    single_mask = Identity (mask_0)
    single_iou = Slice (ious, n0, n1, axis1)
"""
CONSTANTS = """<int64[1] axis1 = {1}, int64[1] axis2 = {2}, int64[1] axis3 = {3}, int64[2] axes12 = {1, 2},
 int64[3] axes123 = {1, 2, 3}, int64[4] all_axes = {0, 1, 2, 3}, int64[1] n0 = {0}, int64[1] n1 = {1},
 int64[1] n2 = {2}, int64[2] n00 = {0, 0}, int64[2] n11 = {1, 1}, int32 on_object = {1},
 int32 off_object = {0}, float half = {0.5}, float nothing = {0.0}, float ten = {10.0}, float thousandth = {0.001}>"""


def build(
    folder: Path, *, programs: Sequence[str] = PROGRAMS, rows: int | None = None, sam2: bool = False, seed: int = 0
) -> Manifest:
    """Write the artifact folder with these programs."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weights.bin").write_bytes(bytes([seed]))
    made = tuple(_program(name, rows, sam2) for name in programs)
    for program in made:
        (folder / program.files["onnx"]).write_bytes(_model(program).SerializeToString())
    manifest = Manifest(
        recipe="hand_made_sam",
        recipe_digest=hashlib.sha256(b"hand_made_sam").hexdigest(),
        weights=WeightsInfo(f"seeded(seed={seed})", hashlib.sha256(bytes([seed])).hexdigest(), "weights.bin", 1),
        programs=made,
        bank=(),
        preprocessing=PreprocessingInfo(SIZE, image_resize="bilinear-antialias", fit="stretch" if sam2 else "pad"),
    )
    manifest.save(folder / "manifest.json")
    return manifest


def _program(name: str, rows: int | None, sam2: bool) -> ProgramInfo:
    p: int | str = "prompts" if rows is None else rows
    image = (PortInfo("image", "float32", (1, 3, SIZE, SIZE)),)
    maps = [PortInfo("high_res_0", "float32", (1, 1, LOW, LOW))] if sam2 else []
    maps.append(PortInfo("features", "float32", (1, 1, GRID, GRID)))
    points = (
        PortInfo("point_coords", "float32", (p, PLACES, 2)),
        PortInfo("point_labels", "int32", (p, PLACES)),
    )
    earlier = (PortInfo("mask_input", "float32", (p, 1, LOW, LOW)), PortInfo("mask_input_valid", "bool", (p,)))
    results = (
        PortInfo("low_res_masks", "float32", (p, 3, LOW, LOW)),
        PortInfo("ious", "float32", (p, 3)),
        PortInfo("single_mask", "float32", (p, 1, LOW, LOW)),
        PortInfo("single_iou", "float32", (p, 1)),
    )
    inputs: tuple[PortInfo, ...] = {
        "encode_image": image,
        "predict": (*maps, *points, *earlier),
        "predict@points": (*maps, *points),
    }[name]
    if name == "encode_image":
        return ProgramInfo(name, {"onnx": f"{name}.onnx"}, inputs, tuple(maps))
    specialises, pinned = (None, ()) if name == "predict" else ("predict", ("mask_input_valid",))
    return ProgramInfo(name, {"onnx": f"{name}.onnx"}, inputs, results, specialises, pinned)


def _model(program: ProgramInfo) -> onnx.ModelProto:
    if program.name == "encode_image":
        nodes = ENCODE_IMAGE + (FINER if len(program.outputs) > 1 else "")
    else:
        masks = WITHOUT_MASKS if program.specialises else WITH_MASKS
        nodes = POINTS + masks + "".join(CANDIDATE.format(m=m) for m in range(3)) + RESULTS
    head = f'<ir_version: 10, opset_import: ["" : 18]>\nprogram (float x) => (float y)\n{CONSTANTS}\n'
    model = onnx.parser.parse_model(head + "{" + nodes + "}")
    graph = model.graph
    del graph.input[:], graph.output[:]
    graph.input.extend(_value(port) for port in program.inputs)
    graph.output.extend(_value(port) for port in program.outputs)
    cells = ((np.arange(LOW) + 0.5) * SIZE / LOW).astype(np.float32)
    tables = {"cell_x": cells.reshape(1, 1, 1, LOW), "cell_y": cells.reshape(1, 1, LOW, 1)}
    tables |= {f"radius_{m}": np.array(RADIUS + grown, np.float32) for m, grown in enumerate(GROWN)}
    tables["levels"] = np.array([LEVELS], np.float32)
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in tables.items())
    return model


def _value(port: PortInfo) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(port.name, helper.np_dtype_to_tensor_dtype(np.dtype(port.dtype)), port.shape)
