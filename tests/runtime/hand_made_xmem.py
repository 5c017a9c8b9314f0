"""A small artifact folder with hand-made graphs of XMem's programs: the real port names and the real rules of the bank,
arithmetic that a reader can follow.

An object's logit is the grey image, times a gain of its row, shifted by what it recalls: values of working and
long-term memory since its first frame, and its sensory state. A memory frame's values are the pooled probabilities.
`start` draws a diamond around the first point, larger the brighter `prompt_image` is, and draws nothing for three
positive points.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
from onnx import helper, numpy_helper

from samonnx.runtime.manifest import (
    BankPair,
    Manifest,
    PortInfo,
    PreprocessingInfo,
    ProgramInfo,
    WeightsInfo,
    XMemInfo,
)

HEIGHT, WIDTH, SLOTS, PLACES, EVERY, KEPT, POINTS = 24, 32, 4, 6, 2, 2, 3
PROMPT_SIZE, PROMPT_PART = 64, (48, 64)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

HEAD = """
<ir_version: 10, opset_import: ["" : 18]>
step (float x) => (float y)
<int64[1] axis0 = {0}, int64[1] axis1 = {1}, int64[1] axis2 = {2}, int64[3] axes123 = {1, 2, 3},
 int64[3] axes012 = {0, 1, 2}, int64[2] axes12 = {1, 2},
 int64[3] over_pixels = {-1, 1, 1}, int64[4] over_cells = {-1, 1, 1, 1}, int64[2] column = {-1, 1},
 int64[3] over_slots = {1, -1, 1}, int64[3] plane = {1, 24, 32}, int64[3] rows_of_cells = {-1, 1, 12},
 int64[4] sensory_shape = {-1, 1, 3, 4}, int64[2] across = {1, -1},
 int32 nothing = {0}, int32 none = {-1}, int32 one = {1}, int32 two = {2}, int32[4] slots = {0, 1, 2, 3},
 int32[6] places = {0, 1, 2, 3, 4, 5}, int32 six = {6},
 float half = {0.5}, float tenth = {0.1}, float third = {0.3}, float unit = {1.0}, float eight = {8.0},
 float zero = {0.0},
 float far = {-1e9}, bool true = {1}>
{
"""

STEP = """
    known_before = GreaterOrEqual (bank__object_since, nothing)
    unknown = Not (known_before)
    fresh = And (is_given, unknown)
    next_bank__object_since = Where (fresh, bank__frame_count, bank__object_since)
    known = GreaterOrEqual (next_bank__object_since, nothing)
    known_column = Reshape (known, over_pixels)
    grey = ReduceMean <keepdims = 0> (image, axis1)

    since = Reshape (bank__object_since, column)
    known_before_column = Reshape (known_before, column)
    filled = GreaterOrEqual (bank__working_frame, nothing)
    filled_f = Cast <to = 1> (filled)
    filled_across = Reshape (filled, across)
    frames_across = Reshape (bank__working_frame, across)
    in_time = GreaterOrEqual (frames_across, since)
    held_1 = And (filled_across, in_time)
    held = And (held_1, known_before_column)
    held_f = Cast <to = 1> (held)
    level = ReduceMean <keepdims = 0> (bank__working_value, axis2)
    faded = Mul (level, held_f)
    recalled = ReduceSum <keepdims = 0> (faded, axis1)
    long_filled = Less (places, bank__long_count)
    long_filled_f = Cast <to = 1> (long_filled)
    long_across = Reshape (long_filled, across)
    long_frames = Reshape (bank__long_frame, across)
    long_in_time = GreaterOrEqual (long_frames, since)
    long_held_1 = And (long_across, long_in_time)
    long_held = And (long_held_1, known_before_column)
    long_held_f = Cast <to = 1> (long_held)
    long_faded = Mul (bank__long_value, long_held_f)
    long_recalled = ReduceSum <keepdims = 0> (long_faded, axis1)
    sensed = ReduceMean <keepdims = 0> (bank__sensory, axes123)
    known_before_cells = Reshape (known_before, over_cells)
    sensory = Where (known_before_cells, bank__sensory, zero)
    felt = Mul (sensed, third)
    both = Add (recalled, long_recalled)
    shift_1 = Mul (both, tenth)
    shift_2 = Add (shift_1, felt)
    shift = Reshape (shift_2, over_pixels)
    bright = Mul (grey, gains)
    predicted = Add (bright, shift)
    painted_2 = Add (masks, masks)
    painted_1 = Sub (painted_2, unit)
    painted = Mul (painted_1, eight)
    given_column = Reshape (is_given, over_pixels)
    logits_1 = Where (given_column, painted, predicted)
    logits = Where (known_column, logits_1, far)
    background = Mul (grey, zero)
    all_logits = Concat <axis = 0> (background, logits)
    probabilities = Softmax <axis = 0> (all_logits)

    known_f = Cast <to = 6> (known)
    any_known_i = ReduceMax <keepdims = 0> (known_f, axis0)
    any_known = Greater (any_known_i, nothing)
    known_before_f = Cast <to = 6> (known_before)
    any_before_i = ReduceMax <keepdims = 0> (known_before_f, axis0)
    reads = Cast <to = 1> (any_before_i)
    writes_1 = And (memory_frame, any_known)
    ends = Not (last_frame)
    writes = And (writes_1, ends)
    empty = Equal (bank__working_frame, none)
    empty_f = Cast <to = 6> (empty)
    slot_l = ArgMax <axis = 0, keepdims = 0> (empty_f)
    slot = Cast <to = 6> (slot_l)
    chosen = Equal (slots, slot)
    written = And (chosen, writes)
    next_bank__working_frame = Where (written, bank__frame_count, bank__working_frame)
    objects = Slice (probabilities, axis1, rows_end, axis0)
    planes = Unsqueeze (objects, axis0)
    pooled = AveragePool <kernel_shape = [8, 8], strides = [8, 8]> (planes)
    value = Reshape (pooled, rows_of_cells)
    written_slots = Reshape (written, over_slots)
    next_bank__working_value = Where (written_slots, value, bank__working_value)
    counted = Mul (filled_f, reads)
    counted_column = Reshape (counted, column)
    next_bank__working_use = Add (bank__working_use, counted_column)
    long_counted = Mul (long_filled_f, reads)
    next_bank__long_use = Add (bank__long_use, long_counted)
    kept_state = Mul (sensory, half)
    new_state = Reshape (pooled, sensory_shape)
    known_cells = Reshape (known, over_cells)
    state_1 = Add (kept_state, new_state)
    next_bank__sensory = Where (known_cells, state_1, zero)
    next_bank__frame_count = Add (bank__frame_count, one)
    next_bank__last_memory = Where (writes, bank__frame_count, bank__last_memory)
"""

PROMPT = """
    label_f = Cast <to = 1> (point_labels)
    top = ReduceMax <keepdims = 0> (point_labels, axis1)
    is_given = GreaterOrEqual (top, nothing)
    positive = Equal (point_labels, one)
    positive_i = Cast <to = 1> (positive)
    count = ReduceSum <keepdims = 0> (positive_i, axis1)
    many = Greater (count, two_f)
    first = Slice (point_coords, axis0, axis1, axis1)
    x_1 = Slice (first, axis0, axis1, axis2)
    y_1 = Slice (first, axis1, axis2, axis2)
    x_2 = Mul (x_1, half)
    y_2 = Mul (y_1, half)
    away_x = Sub (columns, x_2)
    away_y = Sub (lines, y_2)
    abs_x = Abs (away_x)
    abs_y = Abs (away_y)
    away = Add (abs_x, abs_y)
    light = ReduceMean <keepdims = 0> (prompt_image)
    many_f = Cast <to = 1> (many)
    less = Mul (many_f, hundred)
    radius_1 = Sub (eight, less)
    radius_2 = Add (radius_1, light)
    radius = Reshape (radius_2, over_pixels)
    prompt_masks = Sub (radius, away)
    drawn = Greater (prompt_masks, zero)
    drawn_f = Cast <to = 1> (drawn)
    asked = Reshape (is_given, over_pixels)
    masks = Where (asked, drawn_f, zero)
    ious_1 = Mul (count, tenth)
    prompt_ious = Add (ious_1, half)
"""

CONSOLIDATE = """
    low = ReduceMin <keepdims = 0> (bank__working_frame)
    high = ReduceMax <keepdims = 0> (bank__working_frame)
    full = GreaterOrEqual (low, nothing)
    not_low = Greater (bank__working_frame, low)
    not_high = Less (bank__working_frame, high)
    between = And (not_low, not_high)
    gone = And (between, full)
    next_bank__working_frame = Where (gone, none, bank__working_frame)
    after = Add (bank__long_count, two)
    bounded = Min (after, six)
    from_here = GreaterOrEqual (places, bank__long_count)
    to_here = Less (places, bounded)
    new_1 = And (from_here, to_here)
    new = And (new_1, full)
    next_bank__long_count = Where (full, bounded, bank__long_count)
    next_bank__long_frame = Where (new, high, bank__long_frame)
    next_bank__long_use = Where (new, zero, bank__long_use)
    summary = ReduceMean <keepdims = 0> (bank__working_value, axes12)
    summary_column = Reshape (summary, column)
    next_bank__long_value = Where (new, summary_column, bank__long_value)
"""

EMPTY = {"working_frame": -1, "long_frame": -1, "object_since": -1}
PLAIN_CHANGES = ("working_use", "long_use", "sensory", "frame_count")
STEP_CHANGES = ("working_frame", "working_value", "object_since", "last_memory", *PLAIN_CHANGES)
CONSOLIDATION_CHANGES = ("working_frame", "long_frame", "long_use", "long_count", "long_value")


def _pairs(objects: int) -> tuple[BankPair, ...]:
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {
        "working_value": ("float32", (objects, SLOTS, 12)),
        "working_use": ("float32", (SLOTS, 12)),
        "working_frame": ("int32", (SLOTS,)),
        "long_value": ("float32", (objects, PLACES)),
        "long_use": ("float32", (PLACES,)),
        "long_frame": ("int32", (PLACES,)),
        "long_count": ("int32", ()),
        "sensory": ("float32", (objects, 1, 3, 4)),
        "object_since": ("int32", (objects,)),
        "frame_count": ("int32", ()),
        "last_memory": ("int32", ()),
    }
    return tuple(
        BankPair(f"bank.{name}", f"next_bank.{name}", dtype, shape, EMPTY.get(name, 0))
        for name, (dtype, shape) in shapes.items()
    )


def build(folder: Path, *, objects: int = 2, start: bool = True, only: tuple[str, ...] | None = None) -> Manifest:
    """`only`: the programs to make (default: track with both specialisations, consolidate, and start)."""
    folder.mkdir(parents=True)
    weights = np.array([1.0, -0.7, 0.4, 0.2][:objects], dtype=np.float32)
    (folder / "weights.bin").write_bytes(weights.tobytes())
    pairs = _pairs(objects)
    ports = {pair.input: PortInfo(pair.input, pair.dtype, pair.shape) for pair in pairs}
    frame = {
        port.name: port
        for port in (
            PortInfo("image", "float32", (1, 3, HEIGHT, WIDTH)),
            PortInfo("masks", "float32", (objects, HEIGHT, WIDTH)),
            PortInfo("is_given", "bool", (objects,)),
            PortInfo("memory_frame", "bool", ()),
            PortInfo("last_frame", "bool", ()),
            PortInfo("prompt_image", "float32", (1, 3, PROMPT_SIZE, PROMPT_SIZE)),
            PortInfo("point_coords", "float32", (objects, POINTS, 2)),
            PortInfo("point_labels", "int32", (objects, POINTS)),
        )
    }
    found = {
        port.name: port
        for port in (
            PortInfo("probabilities", "float32", (1 + objects, HEIGHT, WIDTH)),
            PortInfo("prompt_masks", "float32", (objects, HEIGHT, WIDTH)),
            PortInfo("prompt_ious", "float32", (objects,)),
        )
    }
    step = ("image", "masks", "is_given", "memory_frame", "last_frame")
    prompt = ("prompt_image", "image", "point_coords", "point_labels")
    bodies: dict[str, tuple[str, dict[str, bool], tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
        "track": (STEP, {}, step, ("probabilities",), STEP_CHANGES),
        "track@plain": (STEP, {"memory_frame": False, "is_given": False}, step, ("probabilities",), PLAIN_CHANGES),
        "track@memory": (STEP, {"memory_frame": True, "last_frame": False}, step, ("probabilities",), STEP_CHANGES),
        "consolidate": (CONSOLIDATE, {}, (), (), CONSOLIDATION_CHANGES),
    }
    if start:
        pinned = {"memory_frame": True, "last_frame": False}
        bodies["start"] = (PROMPT + STEP, pinned, prompt, tuple(found), STEP_CHANGES)
    programs = []
    for name, (body, pinned, inputs, outputs, changes) in bodies.items():
        if only is not None and name not in only:
            continue
        given = tuple(i for i in inputs if i not in pinned and not (i == "masks" and "is_given" in pinned))
        info = ProgramInfo(
            name,
            {"onnx": f"{name.replace('@', '_')}.onnx"},
            (*(frame[i] for i in given), *ports.values()),
            (*(found[o] for o in outputs), *(_next(ports[f"bank.{c}"]) for c in changes)),
            specialises="track" if "@" in name else None,
            pinned=tuple(pinned),
        )
        model = _model(body, info, {i: frame[i] for i in ("masks", *pinned) if i not in given}, pinned, objects)
        onnx.save(model, folder / info.files["onnx"])
        programs.append(info)
    manifest = Manifest(
        recipe="hand_made_xmem",
        recipe_digest=hashlib.sha256(f"{objects} {start}".encode()).hexdigest(),
        weights=WeightsInfo(
            "seeded(seed=0)", hashlib.sha256(weights.tobytes()).hexdigest(), "weights.bin", 4 * objects
        ),
        programs=tuple(programs),
        bank=pairs,
        preprocessing=PreprocessingInfo(
            WIDTH, MEAN, STD, "bilinear", "bilinear", binary_mask_prompts=True, height=HEIGHT, width=WIDTH
        ),
        xmem=XMemInfo(SLOTS, KEPT, PLACES, 2, EVERY, 3, objects, HEIGHT, WIDTH, points=POINTS if start else 0),
        prompt_preprocessing=PreprocessingInfo(
            PROMPT_SIZE,
            MEAN,
            STD,
            "bilinear-antialias",
            "bilinear-antialias",
            fit="pad",
            height=PROMPT_PART[0],
            width=PROMPT_PART[1],
        )
        if start
        else None,
    )
    manifest.save(folder / "manifest.json")
    return manifest


def _next(port: PortInfo) -> PortInfo:
    return PortInfo(f"next_{port.name}", port.dtype, port.shape)


def _model(
    body: str, info: ProgramInfo, constant: dict[str, PortInfo], pinned: dict[str, bool], objects: int
) -> onnx.ModelProto:
    model = onnx.parser.parse_model(HEAD + body + "}")
    graph = model.graph
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [name.replace("__", ".") for name in names]
    del graph.input[:], graph.output[:]
    graph.input.extend(_value(port) for port in info.inputs)
    graph.output.extend(_value(port) for port in info.outputs)
    made = {name for node in graph.node for name in node.output}
    values = {
        "gains": np.array([1.0, -0.7, 0.4, 0.2][:objects], dtype=np.float32)[:, None, None],
        "rows_end": np.array([1 + objects], dtype=np.int64),
        "two_f": np.float32(2),
        "hundred": np.float32(100),
        "columns": np.arange(WIDTH, dtype=np.float32)[None, None] + np.float32(0.5),
        "lines": np.arange(HEIGHT, dtype=np.float32)[None, :, None] + np.float32(0.5),
    } | {
        name: np.full(port.sides(), pinned.get(name, False), dtype=port.dtype)
        for name, port in constant.items()
        if name not in made
    }
    graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in values.items())
    return model


def _value(port: PortInfo) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(port.name, helper.np_dtype_to_tensor_dtype(np.dtype(port.dtype)), port.shape)
