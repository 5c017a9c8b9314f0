"""The smallest program that has all the habits of `track`: a frame, a click, a bank that is fed back, two targets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from samonnx.emit import emit
from samonnx.runtime.manifest import (
    BankPair,
    Manifest,
    MemoryInfo,
    PortInfo,
    PreprocessingInfo,
    ProgramInfo,
    VerificationInfo,
    WeightsInfo,
)

SIZE = 16
OBJECTS, SLOTS = 1, 2

# A running mean of frames, weighted; the click and the frame's number leave their traces in mask and bank.
_TRACK = """
<ir_version: 10, opset_import: ["" : 23]>
traced (float[1,3,16,16] image, int32 frame_index, int32 num_frames, float[1,2,2] point_coords,
        int32[1,2] point_labels, bool[1] attend_memory, float[1,2,16,16] bank_memory, int32[1,2] bank_memory_frame,
        float[1,3,16,16] weight, float[1,1,16,16] window, float zero, int64[1] channels, int32 none)
    => (float[1,1,16,16] masks, int32[1] mask_choice, float[1,2,16,16] next_bank_memory,
        int32[1,2] next_bank_memory_frame)
{
    weighted = Mul(image, weight)
    grey = ReduceMean<keepdims=1>(weighted, channels)
    click = ReduceSum<keepdims=0>(point_coords)
    marked = Add(grey, click)
    past = ReduceMean<keepdims=1>(bank_memory, channels)
    used = Where(attend_memory, past, zero)
    summed = Add(marked, used)
    masks = Mul(summed, window)
    clips = Max(point_labels, none)
    mask_choice = ReduceMax<keepdims=0>(clips, channels)
    next_bank_memory = Concat<axis=1>(marked, past)
    length = Add(frame_index, num_frames)
    next_bank_memory_frame = Add(bank_memory_frame, length)
}
"""


def track_model(seed: int = 0) -> ir.Model:
    """The program `track`; `weight` (3 KiB) and `window` (1 KiB) are large enough to leave the graph file."""
    model = ir.from_onnx_text(_TRACK)
    for value in (*model.graph.inputs, *model.graph.outputs):
        assert value.name is not None
        value.name = value.name.replace("bank_", "bank.")  # the text form has no dots in names
    random = np.random.default_rng(seed)
    add_initializers(
        model,
        {
            "weight": random.standard_normal((1, 3, SIZE, SIZE), dtype=np.float32),
            "window": random.standard_normal((1, 1, SIZE, SIZE), dtype=np.float32),
            "zero": np.zeros((), np.float32),
            "channels": np.array([1], np.int64),
            "none": np.array(-1, np.int32),
        },
    )
    return model


def add_initializers(model: ir.Model, arrays: Mapping[str, npt.NDArray[np.generic]]) -> None:
    """Turn inputs of the graph into constants."""
    for value in [value for value in model.graph.inputs if value.name in arrays]:
        model.graph.inputs.remove(value)
        value.const_value = ir.tensor(arrays[value.name or ""], name=value.name)
        model.graph.register_initializer(value)


def ports_of(values: list[ir.Value]) -> tuple[PortInfo, ...]:
    ports = []
    for value in values:
        assert value.dtype is not None
        assert value.shape is not None
        ports.append(PortInfo(value.name or "", str(value.dtype.numpy()), tuple(value.shape.numpy())))
    return tuple(ports)


def manifest_of(programs: Mapping[str, Mapping[str, ir.Model]], recipe_digest: str = "0" * 64) -> Manifest:
    """A manifest that tells the truth about `programs`."""
    described = []
    for name, targets in programs.items():
        graph = next(iter(targets.values())).graph
        described.append(ProgramInfo(name, {}, ports_of(list(graph.inputs)), ports_of(list(graph.outputs))))
    ports = {port.name: port for program in described for port in (*program.inputs, *program.outputs)}
    empties = {"bank.memory": 0.0, "bank.memory_frame": -1}
    pairs = (
        BankPair(name, f"next_{name}", ports[name].dtype, ports[name].sides(), empty)
        for name, empty in empties.items()
        if name in ports
    )
    return Manifest(
        recipe="tiny",
        recipe_digest=recipe_digest,
        weights=WeightsInfo("seeded(seed=0)", "1" * 64, "weights.bin", 0),
        programs=tuple(described),
        bank=tuple(pairs),
        preprocessing=PreprocessingInfo(size=SIZE),
        memory=MemoryInfo(1, 1, 2, "recent", objects=OBJECTS, points=2),
        tools={"onnx": "1.23.2"},
        verification=(VerificationInfo("track", "onnx", "numbers", 1e-4),),
    )


def emit_tiny(directory: Path, seed: int = 0, recipe_digest: str = "0" * 64) -> Manifest:
    """The artifact of `track_model(seed)` for both targets, at `directory`."""
    model = track_model(seed)
    programs = {"track": {"onnx": model, "ort-cpu": model}}
    return emit(programs, manifest_of(programs, recipe_digest), directory)
