"""A small artifact folder with a hand-made `track` graph: the real port names, arithmetic that a reader can follow.

Low-resolution logits are the pooled image, shifted by the prompts of the row and by what its bank recalls. Each frame
is written to one slot of the row's bank: slot 0 if the row is prompted, else 1 + frame_index % 2. Everything is a
function of the inputs alone and rows do not see each other, so the laws of the bank hold. `track@k` recalls the first k
slots only.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
from onnx import helper, numpy_helper

from samonnx.runtime.manifest import (
    BankPair,
    Manifest,
    MemoryInfo,
    PortInfo,
    PreprocessingInfo,
    ProgramInfo,
    WeightsInfo,
)
from tests.runtime.hand_made_motion import motion_pairs, with_motion

SIZE, SIDE, LOW = 28, 2, 8
PLACES, SLOTS, CHANNELS, WIDTH = 4, 3, 4, 8

GRAPH = """
<ir_version: 10, opset_import: ["" : 18]>
track (float x) => (float y)
<int64[1] axis1 = {1}, int64[1] axis2 = {2}, int64[3] axes123 = {1, 2, 3}, int64[3] axes234 = {2, 3, 4},
 int64[4] column = {-1, 1, 1, 1}, int64[2] matrix = {-1, 1}, int64[5] slot_shape = {-1, 3, 1, 1, 1},
 int64[3] pointer_slot_shape = {-1, 3, 1}, int64[3] pointer_shape = {-1, 1, 8},
 int64[5] memory_shape = {-1, 1, 4, 2, 2},
 int32 nothing = {0}, int32 single = {-1}, int32 one = {1}, int32 two = {2}, int32[3] slots = {0, 1, 2},
 float half = {0.5}, float tenth = {0.1}, float thousandth = {0.001}, float unit = {1.0}, float four = {4.0},
 float[2] xy = {0.02, 0.005}, float[3] candidates = {1.0, 0.5, -1.0}, float[4] scales = {1.0, 1.0, 3.5, 3.5},
 float[1,4,1,1] channels = {1.0, 0.5, -0.5, 2.0}, float[8] directions = {1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0}>
{
    grey = ReduceMean <keepdims = 1> (image, axis1)
    tinted = Mul (grey, ramp)
    pixels = AveragePool <kernel_shape = [7, 7], strides = [3, 3]> (tinted)

    given = GreaterOrEqual (point_labels, nothing)
    given_f = Cast <to = 1> (given)
    label_f = Cast <to = 1> (point_labels)
    scaled = Mul (point_coords, xy)
    place = ReduceSum <keepdims = 0> (scaled, axis2)
    place_label = Add (place, label_f)
    place_given = Mul (place_label, given_f)
    prompt = ReduceSum <keepdims = 0> (place_given, axis1)
    count = ReduceSum <keepdims = 0> (given_f, axis1)

    any_held = GreaterOrEqual (bank__memory_frame, nothing)
    held = And (any_held, looked_at)
    held_f = Cast <to = 1> (held)
    age = Sub (frame_index, bank__memory_frame)
    age_f = Cast <to = 1> (age)
    age_1 = Add (age_f, unit)
    fade = Div (held_f, age_1)
    level = ReduceMean <keepdims = 0> (bank__memory, axes234)
    faded = Mul (level, fade)
    pointer_level = ReduceMean <keepdims = 0> (bank__pointer, axis2)
    pointer_faded = Mul (pointer_level, fade)
    both = Add (faded, pointer_faded)
    recalled = ReduceSum <keepdims = 0> (both, axis1)
    attends = Cast <to = 1> (attend_memory)
    frames_f = Cast <to = 1> (num_frames)
    frames_s = Mul (frames_f, thousandth)
    length = Add (frames_s, unit)
    attended = Mul (recalled, attends)
    memory_term = Mul (attended, length)

    shift = Add (prompt, memory_term)
    shift_c = Tanh (shift)
    shift_h = Mul (shift_c, half)
    shift_column = Reshape (shift_h, column)
    earlier = Mul (prev_logits, tenth)
    earlier_f = Cast <to = 1> (prev_logits_valid)
    earlier_column = Reshape (earlier_f, column)
    earlier_given = Mul (earlier, earlier_column)
    painted = AveragePool <kernel_shape = [7, 7], strides = [3, 3]> (mask_prompt)
    painted_f = Cast <to = 1> (mask_prompt_valid)
    painted_column = Reshape (painted_f, column)
    painted_4 = Mul (painted, four)
    painted_given = Mul (painted_4, painted_column)
    low_1 = Add (pixels, shift_column)
    low_2 = Add (low_1, earlier_given)
    low_res_masks = Add (low_2, painted_given)
    masks = Resize <mode = "linear"> (low_res_masks, , scales)
    mean = ReduceMean <keepdims = 0> (low_res_masks, axes123)
    object_score = Reshape (mean, matrix)
    candidate_scores = Mul (object_score, candidates)
    ious = Sigmoid (candidate_scores)
    iou = ReduceMax <keepdims = 1> (ious, axis1)
    best = ArgMax <axis = 1, keepdims = 0> (ious)
    best_i = Cast <to = 6> (best)
    many = Greater (count, unit)
    mask_choice = Where (many, single, best_i)
    object_pointer = Mul (object_score, directions)

    clicked = GreaterOrEqual (count, unit)
    prompted = Or (clicked, mask_prompt_valid)
    phase = Mod (frame_index, two)
    recent = Add (phase, one)
    slot = Where (prompted, nothing, recent)
    slot_column = Reshape (slot, matrix)
    here = Equal (slot_column, slots)
    here_5 = Reshape (here, slot_shape)
    here_3 = Reshape (here, pointer_slot_shape)
    pooled = AveragePool <kernel_shape = [4, 4], strides = [4, 4]> (low_res_masks)
    coloured = Mul (pooled, channels)
    written = Reshape (coloured, memory_shape)
    next_bank__memory = Where (here_5, written, bank__memory)
    next_bank__memory_frame = Where (here, frame_index, bank__memory_frame)
    pointer_row = Reshape (object_pointer, pointer_shape)
    next_bank__pointer = Where (here_3, pointer_row, bank__pointer)
    next_bank__pointer_frame = Where (here, frame_index, bank__pointer_frame)
    prompted_column = Reshape (prompted, matrix)
    prompted_here = And (here, prompted_column)
    elsewhere = Not (here)
    memory_kept = And (elsewhere, bank__memory_conditioning)
    next_bank__memory_conditioning = Or (prompted_here, memory_kept)
    pointer_kept = And (elsewhere, bank__pointer_conditioning)
    next_bank__pointer_conditioning = Or (prompted_here, pointer_kept)
}
"""


def bank_pairs(objects: int, *, motion: bool = False) -> tuple[BankPair, ...]:
    """The bank of the hand-made graph."""
    tensors = {
        "memory": ("float32", (objects, SLOTS, CHANNELS, SIDE, SIDE), 0.0),
        "memory_frame": ("int32", (objects, SLOTS), -1),
        "memory_conditioning": ("bool", (objects, SLOTS), False),
        "pointer": ("float32", (objects, SLOTS, WIDTH), 0.0),
        "pointer_frame": ("int32", (objects, SLOTS), -1),
        "pointer_conditioning": ("bool", (objects, SLOTS), False),
    }
    pairs = tuple(BankPair(f"bank.{n}", f"next_bank.{n}", *rest) for n, rest in tensors.items())
    return (*pairs, *motion_pairs(objects, SLOTS)) if motion else pairs


def build(
    folder: Path,
    *,
    objects: int = 2,
    seed: int = 0,
    first: bool = True,
    filled: tuple[int, ...] = (),
    recipe: str = "hand_made",
    motion: bool = False,
) -> Manifest:
    """Write the artifact folder; `first=False` leaves `track@first` out, `filled` adds `track@k` for each k, `motion`
    gives the bank more tensors. Returns the manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, columns = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    ramp = (0.5 + (rows + 2 * columns + seed) / 84).astype(np.float32)
    (folder / "weights.bin").write_bytes(ramp.tobytes())
    pairs = bank_pairs(objects, motion=motion)
    programs = [_program("track", objects, pairs, ())]
    if first:
        pinned = (*(pair.input for pair in pairs), "num_frames", "attend_memory")
        programs.append(_program("track@first", objects, pairs, pinned))
    programs += [replace(_program(f"track@{k}", objects, pairs, ()), specialises="track", filled=k) for k in filled]
    for program in programs:
        model = _model(program, pairs)
        for file in program.files.values():
            (folder / file).write_bytes(model.SerializeToString())
    manifest = Manifest(
        recipe=recipe,
        recipe_digest=hashlib.sha256(f"{recipe} {objects}".encode()).hexdigest(),
        weights=WeightsInfo(f"seeded(seed={seed})", hashlib.sha256(ramp.tobytes()).hexdigest(), "weights.bin", 3136),
        programs=tuple(programs),
        bank=pairs,
        preprocessing=PreprocessingInfo(SIZE),
        memory=MemoryInfo(1, 2, 3, "recent", objects, PLACES),
    )
    manifest.save(folder / "manifest.json")
    return manifest


def _program(name: str, objects: int, pairs: tuple[BankPair, ...], pinned: tuple[str, ...]) -> ProgramInfo:
    o = objects
    inputs = [
        PortInfo("image", "float32", (1, 3, SIZE, SIZE), "normalised frame", "about -1 to 1"),
        PortInfo("frame_index", "int32", (), "index of the frame"),
        PortInfo("num_frames", "int32", (), "length of the clip"),
        PortInfo("point_coords", "float32", (o, PLACES, 2), "prompt points"),
        PortInfo("point_labels", "int32", (o, PLACES), "their labels"),
        PortInfo("attend_memory", "bool", (o,), "false: no memory"),
        PortInfo("mask_prompt", "float32", (o, 1, SIZE, SIZE), "mask prompt"),
        PortInfo("mask_prompt_valid", "bool", (o,), "whether there is one"),
        PortInfo("prev_logits", "float32", (o, 1, LOW, LOW), "earlier logits"),
        PortInfo("prev_logits_valid", "bool", (o,), "whether there are any"),
        *(PortInfo(pair.input, pair.dtype, pair.shape, "bank") for pair in pairs),
    ]
    outputs = [
        PortInfo("low_res_masks", "float32", (o, 1, LOW, LOW)),
        PortInfo("masks", "float32", (o, 1, SIZE, SIZE)),
        PortInfo("ious", "float32", (o, 3)),
        PortInfo("iou", "float32", (o, 1)),
        PortInfo("mask_choice", "int32", (o,)),
        PortInfo("object_score", "float32", (o, 1)),
        PortInfo("object_pointer", "float32", (o, WIDTH)),
        *(PortInfo(pair.output, pair.dtype, pair.shape, "next bank") for pair in pairs),
    ]
    return ProgramInfo(
        name=name,
        files={"onnx": f"{name}.onnx", "ort-cpu": f"{name}.ort-cpu.onnx"},
        inputs=tuple(port for port in inputs if port.name not in pinned),
        outputs=tuple(outputs),
        specialises="track" if pinned else None,
        pinned=pinned,
    )


def _model(program: ProgramInfo, pairs: tuple[BankPair, ...]) -> onnx.ModelProto:
    motion = any(pair.input == "bank.kalman_mean" for pair in pairs)
    model = onnx.parser.parse_model(with_motion(GRAPH) if motion else GRAPH)
    graph = model.graph
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [name.replace("__", ".") for name in names]
    del graph.input[:], graph.output[:]
    graph.input.extend(_value(port) for port in program.inputs)
    graph.output.extend(_value(port) for port in program.outputs)
    for pair in pairs:
        if pair.input in program.pinned:
            empty = np.full(pair.shape, pair.empty, dtype=pair.dtype)
            graph.initializer.append(numpy_helper.from_array(empty, pair.input))
    if "attend_memory" in program.pinned:
        graph.initializer.append(numpy_helper.from_array(np.zeros(pairs[0].shape[0], dtype=bool), "attend_memory"))
        graph.initializer.append(numpy_helper.from_array(np.zeros((), dtype=np.int32), "num_frames"))
    looked_at = np.arange(SLOTS) < (SLOTS if program.filled is None else program.filled)
    graph.initializer.append(numpy_helper.from_array(looked_at, "looked_at"))
    ramp = onnx.TensorProto(name="ramp", data_type=onnx.TensorProto.FLOAT, dims=[SIZE, SIZE])
    ramp.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", "weights.bin"), ("offset", "0"), ("length", str(4 * SIZE * SIZE))):
        ramp.external_data.add(key=key, value=value)
    graph.initializer.append(ramp)
    return model


def _value(port: PortInfo) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(port.name, helper.np_dtype_to_tensor_dtype(np.dtype(port.dtype)), port.shape)


def clip(frames: int, height: int = 30, width: int = 44, seed: int = 0) -> list[np.ndarray]:
    """Smooth uint8 RGB frames with a bright square that moves."""
    rows, columns = np.mgrid[0:height, 0:width]
    made = []
    for index in range(frames):
        frame = np.stack([(rows * 3 + seed) % 256, (columns * 2) % 256, (rows + columns + index) % 256], axis=2)
        left = 4 + 2 * index % max(width - 12, 1)
        frame[6:14, left : left + 8] = 255
        made.append(frame.astype(np.uint8))
    return made
