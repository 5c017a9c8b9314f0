"""A small artifact folder whose graphs that detect are made by hand: the real port names, arithmetic one can follow.

`words` is the mean token, `light` the mean brightness of the image, `shown` adds up the boxes' areas, the points' x + y
and the masks' means, those with label 0 taken off. There are five queries; each has its box, a mask that covers it, a
level of its own, and a taste for what was shown:

    logit    = level + words + taste * shown
    presence = 4 * words + light
    score    = sigmoid(logit) * sigmoid(presence)

`segment` is the three parts in one graph, so that it gives what they give.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser
from onnx import helper, numpy_helper

from samonnx.runtime.manifest import (
    DetectionInfo,
    Manifest,
    PortInfo,
    PreprocessingInfo,
    ProgramInfo,
    TextInfo,
    WeightsInfo,
)

SIZE, GRID, LOW, WIDTH = 28, 2, 8, 4
CONTEXT, QUERIES, BOXES, POINTS = 8, 5, 2, 3
PROGRAMS = ("segment", "encode_text", "encode_image", "ground")

LEVELS = (2.0, 1.5, 1.0, -1.0, -3.0)
TASTES = (1.0, -1.0, 0.5, 2.0, -2.0)
QUERY_BOXES = (
    (0.0, 0.0, 0.5, 0.5),
    (0.0, 0.0, 0.5, 0.625),
    (0.5, 0.5, 1.0, 1.0),
    (0.25, 0.0, 0.75, 0.25),
    (0.0, 0.75, 0.25, 1.0),
)

ENCODE_TEXT = """
    tokens_f = Cast <to = 1> (token_ids)
    token_column = Unsqueeze (tokens_f, axis2)
    text_features = Mul (token_column, per_token)
    padding = Equal (token_ids, no_token)
    text_valid = Not (padding)
"""
ENCODE_IMAGE = """
    tinted = Mul (image, ramp)
    grey = ReduceMean <keepdims = 1> (tinted, axis1)
    grey_8 = AveragePool <kernel_shape = [7, 7], strides = [3, 3]> (grey)
    grey_4 = AveragePool <kernel_shape = [7, 7], strides = [7, 7]> (grey)
    grey_2 = AveragePool <kernel_shape = [14, 14], strides = [14, 14]> (grey)
    high_res_0 = Mul (grey_8, channels)
    high_res_1 = Mul (grey_4, channels)
    features = Mul (grey_2, channels)
"""
GROUND = """
    valid_f = Cast <to = 1> (text_valid)
    valid_column = Unsqueeze (valid_f, axis2)
    words_each = Mul (text_features, valid_column)
    words_sum = ReduceSum <keepdims = 0> (words_each, axes12)
    words_number = ReduceSum <keepdims = 0> (valid_f, axis1)
    words = Div (words_sum, words_number)
    light = ReduceMean <keepdims = 0> (features, axes123)

    box_sign = Cast <to = 1> (prompt_box_labels)
    box_sign_2 = Mul (box_sign, two)
    box_sign_1 = Sub (box_sign_2, one)
    box_given = GreaterOrEqual (prompt_box_labels, nothing)
    box_given_f = Cast <to = 1> (box_given)
    box_weight = Mul (box_sign_1, box_given_f)
    box_side = Slice (prompt_boxes, start2, end4, axis2)
    box_area = ReduceProd <keepdims = 0> (box_side, axis2)
    box_each = Mul (box_area, box_weight)
    shown_boxes = ReduceSum <keepdims = 0> (box_each, axis1)

    point_sign = Cast <to = 1> (prompt_point_labels)
    point_sign_2 = Mul (point_sign, two)
    point_sign_1 = Sub (point_sign_2, one)
    point_given = GreaterOrEqual (prompt_point_labels, nothing)
    point_given_f = Cast <to = 1> (point_given)
    point_weight = Mul (point_sign_1, point_given_f)
    point_place = ReduceSum <keepdims = 0> (prompt_points, axis2)
    point_each = Mul (point_place, point_weight)
    shown_points = ReduceSum <keepdims = 0> (point_each, axis1)
    shown_both = Add (shown_boxes, shown_points)
"""
WITHOUT_MASKS = """
    shown = Identity (shown_both)
"""
WITH_MASKS = """
    mask_given = GreaterOrEqual (prompt_mask_labels, nothing)
    mask_given_f = Cast <to = 1> (mask_given)
    mask_mean = ReduceMean <keepdims = 0> (prompt_masks, axes23)
    mask_each = Mul (mask_mean, mask_given_f)
    shown_masks = ReduceSum <keepdims = 0> (mask_each, axis1)
    shown = Add (shown_both, shown_masks)
"""
RESULTS = """
    leaning = Mul (shown, tastes)
    level_words = Add (levels, words)
    logits = Add (level_words, leaning)
    words_4 = Mul (words, four)
    presence = Add (words_4, light)
    class_score = Sigmoid (logits)
    presence_score = Sigmoid (presence)
    scores = Mul (class_score, presence_score)
    boxes = Identity (query_boxes)
    brightness = ReduceMean <keepdims = 1> (high_res_0, axis1)
    faint = Mul (brightness, tenth)
    masks = Add (query_masks, faint)
    semantic_mask = ReduceMax <keepdims = 1> (masks, axis1)
"""
CONSTANTS = """<int64[1] axis1 = {1}, int64[1] axis2 = {2}, int64[2] axes12 = {1, 2}, int64[2] axes23 = {2, 3},
 int64[3] axes123 = {1, 2, 3}, int64[1] start2 = {2}, int64[1] end4 = {4}, int64 no_token = {0}, int32 nothing = {0},
 float one = {1.0}, float two = {2.0}, float four = {4.0}, float tenth = {0.1},
 float[4] per_token = {0.00001, 0.00002, 0.0, 0.0}, float[1,4,1,1] channels = {1.0, 0.5, -0.5, 2.0}>"""


def build(
    folder: Path,
    *,
    programs: Sequence[str] = PROGRAMS,
    masks: int = 0,
    seed: int = 0,
    vocabulary: str = "clip",
    words: bool = True,
) -> Manifest:
    """Write the artifact folder with these programs and places for masks; `words=False` denies them in the manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, columns = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    ramp = (0.5 + (rows + 2 * columns + seed) / 84).astype(np.float32)
    (folder / "weights.bin").write_bytes(ramp.tobytes())
    made = tuple(_program(name, masks) for name in programs)
    for program in made:
        (folder / program.files["onnx"]).write_bytes(_model(program, masks).SerializeToString())
    manifest = Manifest(
        recipe="hand_made_segment",
        recipe_digest=hashlib.sha256(f"hand_made_segment {masks}".encode()).hexdigest(),
        weights=WeightsInfo(f"seeded(seed={seed})", hashlib.sha256(ramp.tobytes()).hexdigest(), "weights.bin", 3136),
        programs=made,
        bank=(),
        preprocessing=PreprocessingInfo(SIZE),
        text=TextInfo(CONTEXT, vocabulary) if words else None,
        detection=DetectionInfo(QUERIES, BOXES, POINTS, "image", masks=masks),
    )
    manifest.save(folder / "manifest.json")
    return manifest


def picture(height: int = 30, width: int = 44) -> npt.NDArray[np.uint8]:
    """A frame uint8 [H, W, 3] without two equal rows or columns."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 5 % 256, columns * 3 % 256, (rows + 2 * columns) % 256], axis=2).astype(np.uint8)


def _program(name: str, masks: int) -> ProgramInfo:
    image = (PortInfo("image", "float32", (1, 3, SIZE, SIZE), "normalised image"),)
    tokens = (PortInfo("token_ids", "int64", (1, CONTEXT), "CLIP tokens"),)
    text = (
        PortInfo("text_features", "float32", (1, CONTEXT, WIDTH)),
        PortInfo("text_valid", "bool", (1, CONTEXT)),
    )
    maps = tuple(
        PortInfo(map_name, "float32", (1, WIDTH, side, side))
        for map_name, side in (("high_res_0", LOW), ("high_res_1", 2 * GRID), ("features", GRID))
    )
    places = [
        PortInfo("prompt_boxes", "float32", (1, BOXES, 4)),
        PortInfo("prompt_box_labels", "int32", (1, BOXES)),
        PortInfo("prompt_points", "float32", (1, POINTS, 2)),
        PortInfo("prompt_point_labels", "int32", (1, POINTS)),
    ]
    if masks:
        places += [
            PortInfo("prompt_masks", "float32", (1, masks, LOW, LOW)),
            PortInfo("prompt_mask_labels", "int32", (1, masks)),
        ]
    results = (
        PortInfo("boxes", "float32", (1, QUERIES, 4)),
        PortInfo("logits", "float32", (1, QUERIES)),
        PortInfo("presence", "float32", (1,)),
        PortInfo("scores", "float32", (1, QUERIES)),
        PortInfo("masks", "float32", (1, QUERIES, LOW, LOW)),
        PortInfo("semantic_mask", "float32", (1, 1, LOW, LOW)),
    )
    inputs, outputs = {
        "encode_text": (tokens, text),
        "encode_image": (image, maps),
        "ground": ((*maps, *text, *places), results),
        "segment": ((*image, *tokens, *places), results),
    }[name]
    return ProgramInfo(name, {"onnx": f"{name}.onnx"}, inputs, outputs)


def _model(program: ProgramInfo, masks: int) -> onnx.ModelProto:
    ground = GROUND + (WITH_MASKS if masks else WITHOUT_MASKS) + RESULTS
    nodes = {
        "encode_text": ENCODE_TEXT,
        "encode_image": ENCODE_IMAGE,
        "ground": ground,
        "segment": ENCODE_TEXT + ENCODE_IMAGE + ground,
    }[program.name]
    head = f'<ir_version: 10, opset_import: ["" : 18]>\n{program.name} (float x) => (float y)\n{CONSTANTS}\n'
    model = onnx.parser.parse_model(head + "{" + nodes + "}")
    graph = model.graph
    del graph.input[:], graph.output[:]
    graph.input.extend(_value(port) for port in program.inputs)
    graph.output.extend(_value(port) for port in program.outputs)
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in _query_tables().items())
    ramp = onnx.TensorProto(name="ramp", data_type=onnx.TensorProto.FLOAT, dims=[SIZE, SIZE])
    ramp.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", "weights.bin"), ("offset", "0"), ("length", str(4 * SIZE * SIZE))):
        ramp.external_data.add(key=key, value=value)
    graph.initializer.append(ramp)
    return model


def _query_tables() -> Mapping[str, npt.NDArray[np.float32]]:
    masks = np.full((1, QUERIES, LOW, LOW), -1, dtype=np.float32)
    for query, (x0, y0, x1, y1) in enumerate(QUERY_BOXES):
        masks[0, query, int(y0 * LOW) : int(y1 * LOW), int(x0 * LOW) : int(x1 * LOW)] = 1
    return {
        "levels": np.array([LEVELS], dtype=np.float32),
        "tastes": np.array([TASTES], dtype=np.float32),
        "query_boxes": np.array([QUERY_BOXES], dtype=np.float32),
        "query_masks": masks,
    }


def _value(port: PortInfo) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(port.name, helper.np_dtype_to_tensor_dtype(np.dtype(port.dtype)), port.shape)
