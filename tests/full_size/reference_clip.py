"""Steps an emitted `track` graph through a clip of the original project's tensors, and reads off every figure.

Two things need care. With seeded weights the squeeze-excite gates of the image encoder magnify float32 rounding on some
frames, by how much depends on the CPU: the free-running graph was 1e-4 from the reference on one and 7e-4 on another.
So the graph is cut at the image encoder's maps. What comes after is given the maps of the encoder in float64, which are
the same on every CPU; the graph's own encoder is held against those maps.

The memory of a prompted frame is encoded from its *thresholded* mask, and a few of the million
pixels have logits within float32 rounding of zero (the image encoder alone moves by 1e-5 from one CPU to another; the
squeeze-excite gates magnify rounding). Each such pixel that falls on the other side changes a patch of about 15 x 15
memory cells by some 1e-3 of their size, and every later frame attends that memory. So before frame 1 the test looks
for the few near-zero pixels whose side explains the reference's memory (`settle_threshold`), puts the memory of that
mask into the bank, and from there holds every number to the strict tolerance. How many pixels had to be turned is
part of the result, and bounded.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch

from samonnx.models.efficientsam3 import EfficientSAM3
from samonnx.models.reference_tracker import encode_image
from samonnx.models.tracker import TrackedModel
from samonnx.runtime.manifest import Manifest
from samonnx.seeded import seeded_frame

Array = np.ndarray[Any, np.dtype[Any]]

TOLERANCE = 1e-4
POSITION_TOLERANCE = 1e-5
NEAR_ZERO = 3e-4
"""Logits below this share of the largest one may fall on either side of the threshold."""
REACH = 9
"""Cells: how far a mask pixel reaches in the memory map (two 7x7 convolutions after four 3x3 of stride 2)."""


MAPS = {name: f"tracker_neck/{name}" for name in ("high_res_0", "high_res_1", "features")}
"""The image encoder's maps as the tracker takes them, as they are called in an emitted graph."""


@dataclass
class Figures:
    """The largest error of each kind of tensor over a clip, relative to the reference tensor's largest magnitude."""

    largest: dict[str, float] = field(default_factory=dict)
    pixels_turned: int = 0
    pixels_compared: int = 0
    pixels_equal: int = 0
    choices: list[tuple[int, int]] = field(default_factory=list)
    by_frame: dict[tuple[str, str], float] = field(default_factory=dict)
    """(frame "07", tensor) → error, for the tensors that carry the image encoder's rounding."""
    encoder: dict[tuple[str, str], float] = field(default_factory=dict)
    """(frame "07", map) → distance of the graph's own encoder from the encoder in float64."""

    def note(self, name: str, found: Array, expected: Array, absolute: bool = False) -> float:
        assert found.shape == expected.shape, (name, found.shape, expected.shape)
        error = float(np.abs(found.astype(np.float64) - expected).max())
        error /= 1.0 if absolute else float(np.abs(expected).max())
        self.largest[name] = max(self.largest.get(name, 0.0), error)
        return error


class ProbedGraph:
    """An emitted graph with some of its inner values as further outputs, and some of them given: a value of `given`
    becomes an input of its own name."""

    def __init__(self, folder: Path, file: str, probes: Mapping[str, str], given: Collection[str] = ()) -> None:
        model = onnx.load(str(folder / file), load_external_data=False)
        known = {output: node for node in model.graph.node for output in node.output}
        types = {value.name: value for value in model.graph.value_info}
        for name in given:
            known[name].output[list(known[name].output).index(name)] = f"{name}/not given"
            model.graph.input.append(types[name])
        self.probes = {name: value for name, value in probes.items() if value in known}
        outputs = [value for value in self.probes.values() if value not in given]
        model.graph.output.extend(onnx.ValueInfoProto(name=value) for value in outputs)
        options = ort.SessionOptions()
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
        self.session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        self.inputs = [value.name for value in self.session.get_inputs()]
        self.outputs = [value.name for value in self.session.get_outputs()]

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        found = dict(
            zip(self.outputs, self.session.run(None, {name: feeds[name] for name in self.inputs}), strict=True)
        )
        return found | {name: found.get(value, feeds.get(value)) for name, value in self.probes.items()}


class GraphEncoder:
    """The image encoder of an emitted graph alone."""

    def __init__(self, folder: Path, file: str) -> None:
        model = onnx.load(str(folder / file), load_external_data=False)
        del model.graph.output[:]
        model.graph.output.extend(onnx.ValueInfoProto(name=value) for value in MAPS.values())
        options = ort.SessionOptions()
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
        self.session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        self.unread = {value.name: value for value in self.session.get_inputs() if value.name != "image"}

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        inputs = {name: feeds[name] for name in ("image", *self.unread)}
        return dict(zip(MAPS, self.session.run(None, inputs), strict=True))


def exact_maps(wide: EfficientSAM3, image: Array) -> dict[str, Array]:
    """The maps of the encoder in float64, rounded to float32 at the end."""
    with torch.inference_mode():
        maps = encode_image(wide, torch.from_numpy(image).double())
    found = {"high_res_0": maps.high_res_0, "high_res_1": maps.high_res_1, "features": maps.features}
    return {name: found[name].float().numpy() for name in MAPS}


def settle_threshold(
    model: TrackedModel,
    features: Array,
    masks: Array,
    score: Array,
    reference: Array,
    stride: int,
    nearness: float = NEAR_ZERO,
) -> tuple[Array, int]:
    """The memory of `masks` with the fewest near-zero pixels turned so that its sample equals `reference`, and how
    many were turned. Near zero is within `nearness` of the largest logit.

    features f32 [1, D, h, w], masks f32 [1, 1, S, S] (logits), reference: the memory's every `stride`-th cell.
    """
    threshold = TOLERANCE * float(np.abs(reference).max())
    cell = masks.shape[-1] // features.shape[-1]

    def encode(logits: Array) -> Array:
        with torch.inference_mode():
            memory = model.tracker.encode_memory(
                torch.from_numpy(features), torch.from_numpy(logits), torch.from_numpy(score), torch.tensor([True])
            )
        return memory.numpy()

    def misfit(memory: Array) -> Array:
        """bool [h', w']: sampled cells that differ."""
        difference: Array = np.abs(memory[..., ::stride, ::stride] - reference).max((0, 1)) > threshold
        return difference

    logits = masks.copy()
    memory = encode(logits)
    wrong, turned = misfit(memory), 0
    near = np.argwhere(np.abs(masks[0, 0]) < nearness * np.abs(masks).max())
    near = near[np.argsort(np.abs(masks[0, 0][tuple(near.T)]))]
    tried: set[tuple[int, int]] = set()
    while wrong.any():
        cells = np.argwhere(wrong) * stride
        candidates = [
            (int(y), int(x))
            for y, x in near
            if (int(y), int(x)) not in tried
            and (np.abs(cells - np.array([y // cell, x // cell])).max(1) <= REACH).any()
        ]
        if not candidates:
            break
        y, x = candidates[0]
        tried.add((y, x))
        attempt = logits.copy()
        attempt[0, 0, y, x] = -1e-6 if attempt[0, 0, y, x] > 0 else 1e-6
        made = encode(attempt)
        if misfit(made).sum() < wrong.sum():
            logits, memory, wrong, turned = attempt, made, misfit(made), turned + 1
    return memory, turned


def clip_figures(
    folder: Path, model: EfficientSAM3, reference_file: Path, target: str, probes: Mapping[str, str]
) -> Figures:
    """Run the whole clip in ONNX Runtime and compare every tensor that the file holds."""
    reference = np.load(reference_file)
    manifest = Manifest.load(folder)
    first = ProbedGraph(folder, manifest.program("track@first").files[target], probes, tuple(MAPS.values()))
    track = ProbedGraph(folder, manifest.program("track").files[target], probes, tuple(MAPS.values()))
    encoder = GraphEncoder(folder, manifest.program("track").files[target])
    wide = copy.deepcopy(model).double()
    frames = int(reference["meta/num_frames"][0])
    held = [t for t in range(frames) if f"frame{t:02d}/low_res_masks_s4" in reference]
    size = manifest.seeing().size
    bank: dict[str, Array] = {pair.input: np.full(pair.shape, pair.empty, pair.dtype) for pair in manifest.bank}
    figures = Figures()
    for t in held:
        feeds = {p.name: np.zeros(p.sides(), p.dtype) for p in manifest.program("track").inputs} | bank
        feeds["image"] = (seeded_frame(t, size)[None] - np.float32(0.5)) / np.float32(0.5)
        feeds["frame_index"], feeds["num_frames"] = np.array(t, np.int32), np.array(frames, np.int32)
        feeds["point_labels"][:] = -1
        feeds["attend_memory"][:] = t > 0
        if t == 0:
            feeds["point_coords"][0, 0], feeds["point_labels"][0, 0] = reference["meta/point_coords"][0, 0], 1
        maps, own = exact_maps(wide, feeds["image"]), encoder.run(feeds)
        for name, expected in maps.items():
            figures.encoder[f"{t:02d}", name] = figures.note(f"encoder: {name}", own[name], expected)
        feeds |= {MAPS[name]: array for name, array in maps.items()}
        found = (first if t == 0 else track).run(feeds)
        bank = {pair.input: found[pair.output] for pair in manifest.bank}
        _compare(figures, feeds | found, reference, f"frame{t:02d}/", t)
        if t == 0:
            memory, figures.pixels_turned = settle_threshold(
                model,
                found["features"],
                found["masks"],
                found["object_score"],
                reference["frame00/maskmem_features_s4"],
                4,
            )
            bank["bank.memory"] = bank["bank.memory"].copy()
            bank["bank.memory"][bank["bank.memory_frame"] == 0] = memory
            figures.note(
                "memory of the prompted frame", memory[..., ::4, ::4], reference["frame00/maskmem_features_s4"]
            )
    return figures


def _compare(figures: Figures, found: Mapping[str, Array], reference: Any, frame: str, t: int) -> None:
    plain = {
        "object_score_logits": found["object_score"],
        "obj_ptr": found["object_pointer"],
        "ious": found["ious"],
        "low_res_masks_s4": found["low_res_masks"][..., ::4, ::4],
        "low_res_masks_s7": found["low_res_masks"][..., ::7, ::7],
    }
    if t > 0:
        slot = found["next_bank.memory_frame"] == t
        plain["maskmem_features_s4"] = found["next_bank.memory"][slot][..., ::4, ::4]
        if "conditioned" in found:
            plain["pix_feat_with_mem_s4"] = found["conditioned"][..., ::4, ::4]
    for name, array in plain.items():
        if frame + name in reference:
            error = figures.note(name, array, reference[frame + name])
            figures.by_frame[f"{t:02d}", name] = error
    for name in ("low_res_masks_s4", "low_res_masks_s7"):
        equal = (plain[name] > 0) == (reference[frame + name] > 0)
        figures.pixels_compared += equal.size
        figures.pixels_equal += int(equal.sum())
    chosen = int(reference[frame + "best_iou_inds"][0]) if reference[frame + "multimask_output"][0] else None
    if chosen is not None:
        figures.choices.append((int(found["mask_choice"][0]), chosen))
    if frame + "memory_prompt_pos_r197" in reference and "memory_position" in found:
        _compare_attention_inputs(figures, found, reference, frame, t)


def _compare_attention_inputs(figures: Figures, found: Mapping[str, Array], reference: Any, frame: str, t: int) -> None:
    """What goes into memory attention, in the original's order: conditioning frames, recent frames oldest first,
    pointers likewise (conditioning frames, then nearest first)."""
    frames, flags = found["bank.memory_frame"][0], found["bank.memory_conditioning"][0]
    valid = found["memory_valid"][0]
    order = [i for i in np.argsort(frames) if valid[i] and flags[i]] + [
        i for i in np.argsort(frames) if valid[i] and not flags[i]
    ]
    parts = found["tokens"].shape[1] // found["bank.pointer_frame"].shape[1]
    places, pointer_flags = found["bank.pointer_frame"][0], found["bank.pointer_conditioning"][0]
    pointer_valid = found["pointer_valid"][0].reshape(-1, parts)[:, 0]
    nearest = np.argsort(-places)
    pointer_order = [i for i in nearest if pointer_valid[i] and pointer_flags[i]]
    pointer_order += [i for i in nearest if pointer_valid[i] and not pointer_flags[i]]

    def sequence(maps: Array, tokens: Array) -> Array:
        width = maps.shape[-1]
        pointers = tokens[0].reshape(-1, parts, width)[pointer_order].reshape(-1, width)
        joined: Array = np.concatenate([maps[0][order].reshape(-1, width), pointers])
        return joined

    position = sequence(found["memory_position"], found["pointer_position"])
    content = sequence(found["slots"], found["tokens"])
    assert len(content) == int(reference[frame + "memory_tokens"][0])
    assert parts * len(pointer_order) == int(reference[frame + "object_pointer_tokens"][0])
    figures.note("memory_prompt", content[::197, None], reference[frame + "memory_prompt_r197"])
    figures.note("memory_prompt_pos", position[::197, None], reference[frame + "memory_prompt_pos_r197"], absolute=True)
    pointers = position[-parts * len(pointer_order) :][::parts, None]
    figures.note("object_pointer_pos", pointers, reference[frame + "object_pointer_pos_r4"], absolute=True)
