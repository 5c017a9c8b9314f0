"""Made-up inputs of a usual kind for any program of an artifact, the same ones every time.

What a port is for is known by its name; of others, numbers inside the range that the manifest gives. Prompt places are
empty, except in programs that look at no memory (`track@first`, `predict`): these get a click. Banks are as after a
clip: conditioning frames first, then the latest ones.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from samonnx.bench_xmem import full_xmem_bank
from samonnx.runtime.bank import Bank
from samonnx.runtime.manifest import BankPair, Manifest, PortInfo, ProgramInfo
from samonnx.runtime.session import Array
from samonnx.runtime.vocabulary import END, START
from samonnx.seeded import seeded_frame

__all__ = ["full_bank", "program_inputs", "video_frame"]

SEED = 0
WORDS = 3
PROMPT_PLACES = ("point_", "prompt_", "mask_prompt", "mask_input", "prev_logits")
FRAME = "_frame"
RANGE = re.compile(r"(-?\d+(?:\.\d+)?) … (-?\d+(?:\.\d+)?)")


def program_inputs(manifest: Manifest, program: ProgramInfo) -> dict[str, Array]:
    """Every input of the program, as the manifest describes it; all values finite."""
    seen = _clip_length(manifest) if program.filled is None else program.filled
    held = _bank_rows(manifest, seen) if manifest.xmem is None else full_xmem_bank(manifest).tensors
    remembers = any(port.name in held for port in program.inputs)
    inputs: dict[str, Array] = {}
    for port in program.inputs:
        if port.name in held:
            inputs[port.name] = np.broadcast_to(held[port.name], port.sides()).copy()
        elif port.name == "frame_index":
            inputs[port.name] = np.full(port.sides(), seen if remembers else 0, dtype=port.dtype)
        else:
            inputs[port.name] = _value(manifest, port)
    if not remembers and {"point_labels", "point_coords"} <= inputs.keys():
        inputs["point_labels"][..., 0] = 1
        inputs["point_coords"][..., 0, :] = manifest.seeing().size / 2
    return inputs


def full_bank(manifest: Manifest, objects: int) -> Bank:
    """A bank of objects 1, 2, …, in which every slot of each holds something; its tensors cannot be written to."""
    seen = _clip_length(manifest)
    empty = Bank.empty(manifest, range(1, objects + 1))
    rows = _bank_rows(manifest, seen)
    tensors = {name: np.broadcast_to(row, (objects, *row.shape)) for name, row in rows.items()}
    return replace(empty, tensors=tensors, next_frame=seen)


def video_frame(width: int, height: int) -> npt.NDArray[np.uint8]:
    """A frame as a video gives it: uint8 [height, width, 3] RGB."""
    square = seeded_frame(0, max(width, height), SEED)[:, :height, :width]
    return np.ascontiguousarray(np.rint(255 * square.clip(0, 1)).astype(np.uint8).transpose(1, 2, 0))


def _clip_length(manifest: Manifest) -> int:
    """So many earlier frames fill every slot of the bank."""
    if manifest.memory is None:
        return 0
    conditioning = manifest.memory.conditioning_slots
    slots = [pair.shape[1] for pair in manifest.bank if _is_frame_tensor(pair)]
    return conditioning + max((count - conditioning for count in slots), default=0)


def _bank_rows(manifest: Manifest, seen: int) -> dict[str, Array]:
    """One object's bank after `seen` frames, prompted on the first of them: bank input -> array without the axis of
    objects. A tensor that has no slots (a motion state) is as for a new object."""
    if manifest.memory is None:
        return {}
    frames = {
        pair.input.removesuffix(FRAME): _slot_frames(pair.shape[1], seen, manifest.memory.conditioning_slots)
        for pair in manifest.bank
        if _is_frame_tensor(pair)
    }
    rows = {}
    for pair in manifest.bank:
        row: Array = np.full(pair.shape[1:], pair.empty, dtype=pair.dtype)
        bases = [base for base in frames if pair.input == base or pair.input.startswith(f"{base}_")]
        if bases and row.shape[:1] == frames[max(bases, key=len)].shape:
            base = max(bases, key=len)
            _fill_slots(pair, row, pair.input.removeprefix(base), frames[base], manifest.memory.conditioning_slots)
        rows[pair.input] = row
    return rows


def _is_frame_tensor(pair: BankPair) -> bool:
    return pair.input.endswith(FRAME) and len(pair.shape) == 2 and pair.dtype.startswith("int")


def _slot_frames(slots: int, seen: int, conditioning: int) -> npt.NDArray[np.int32]:
    """Frame index of each slot, i32 [slots]; -1 where nothing is."""
    prompted = min(conditioning, seen, slots)
    others = min(slots - prompted, seen - prompted)
    held = [*range(prompted), *range(seen - others, seen)]
    return np.array([*held, *[-1] * (slots - len(held))], dtype=np.int32)


def _fill_slots(pair: BankPair, row: Array, part: str, frames: npt.NDArray[np.int32], conditioning: int) -> None:
    """Write what the slots that hold a frame have in this tensor: features are normal numbers, scores and flags such
    that no policy passes the frame over."""
    held = frames >= 0
    if part == FRAME:
        row[held] = frames[held]
    elif part == "_conditioning":
        row[held] = frames[held] < conditioning
    elif row.ndim == 1:
        row[held] = np.ones(1, dtype=row.dtype)
    elif row.dtype.kind == "f":
        row[held] = _random(pair.input).standard_normal(row[held].shape, dtype=np.float32)


def _value(manifest: Manifest, port: PortInfo) -> Array:
    dtype, low, high = np.dtype(port.dtype), *_range(port)
    if port.name == "image":
        return _image(manifest, port)
    if port.name == "token_ids":
        return _tokens(port, low, high)
    if port.name == "text_valid":
        return np.broadcast_to(np.arange(port.sides()[-1]) < _token_count(port), port.sides()).astype(dtype)
    if port.name == "attend_memory":
        return np.ones(port.sides(), dtype=dtype)
    if port.name.endswith("_labels"):
        return np.full(port.sides(), -1, dtype=dtype)
    if port.name.startswith(PROMPT_PLACES) or dtype.kind != "f":
        return np.full(port.sides(), 0 if dtype.kind == "b" else min(max(0, low), high), dtype=dtype)
    if np.isfinite(low):
        return _random(port.name).uniform(low, high, port.sides()).astype(dtype)
    return _random(port.name).standard_normal(port.sides()).astype(dtype)


def _image(manifest: Manifest, port: PortInfo) -> Array:
    """A frame of the synthetic clip, cut to the port's size and normalised; f32 [1, 3, H, W]."""
    height, width = port.sides()[-2:]
    frame = seeded_frame(0, max(height, width), SEED)[:, :height, :width]
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (manifest.seeing().mean, manifest.seeing().std))
    return np.broadcast_to((frame - mean) / std, port.sides()).astype(port.dtype)


def _token_count(port: PortInfo) -> int:
    return min(WORDS + 2, port.sides()[-1])


def _tokens(port: PortInfo, low: float, high: float) -> Array:
    """Start, a few words, end, then zeros; inside the port's range."""
    count = _token_count(port)
    tokens = np.zeros(port.sides(), dtype=np.int64)
    tokens[..., :count] = _random(port.name).integers(1, START, count)
    tokens[..., 0], tokens[..., count - 1] = START, END
    return np.clip(tokens, low, high).astype(port.dtype)


def _range(port: PortInfo) -> tuple[float, float]:
    """The least and the greatest value, as far as the manifest says so in figures."""
    found = RANGE.search(port.range)
    if found is None or found.end() < len(port.range):  # for example 0 … 2^29
        return -np.inf, np.inf
    return float(found[1]), float(found[2])


def _random(name: str) -> np.random.Generator:
    return np.random.default_rng([SEED, zlib.crc32(name.encode())])
