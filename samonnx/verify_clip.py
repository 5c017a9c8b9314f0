"""Verify a `track` program over a clip: every step starts from the reference's bank and is held against the
reference's frame.

Two things are kept out of the comparison, because float32 does not determine them well enough:

- The image encoder. Its squeeze-excite gates can magnify rounding a thousandfold, so that two correct encoders
  differ. The graph's
  own feature maps are read off (`probed`) and given to the reference; the encoder is compared as a component.
- Pixels on the edge of the hard threshold: memory of a frame with points is encoded from the thresholded mask. Where
  a pixel falls on
  the other side, that frame's memory is not compared; the share of such pixels is, and the memory encoder as a
  component.

Each step starts from the reference's own bank, so errors do not add up; the free-running law of equivalence is in the
tests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
import torch

from samonnx.eager_lock import EAGER_LOCK
from samonnx.eager_tracker import eager_tracker
from samonnx.encoder_runs import EncoderRuns, behind
from samonnx.engines import OpenGraph, RunnableGraph
from samonnx.graph_session import Array, GraphSession
from samonnx.models.reference_tracker import FramePrompt, FrameRecord, ImageFeatures, encode_image
from samonnx.models.tracker import RGB, TrackedModel
from samonnx.probed import probed
from samonnx.programs.program import Port, Program
from samonnx.recipe import MemorySpec
from samonnx.reference_bank import bank_of_reference
from samonnx.seeded import seeded_frame
from samonnx.verify import Comparison, compare

__all__ = [
    "FEATURES",
    "EagerSteps",
    "eager_maps",
    "model_frame",
    "normalised_frame",
    "propagation_feeds",
    "verify_clip",
]

ENCODER_TOLERANCE = 2e-2
"""Rounding inside the image encoder has been seen to move its maps by 3e-3 of their largest value; a wrong layer
moves them by 1e-1."""

MASK_SHARE = 1e-4
"""Share of pixels that may fall on the other side of the threshold."""

HALF: RGB = (0.5, 0.5, 0.5)

FEATURES = ("high_res_0", "high_res_1", "features")

EagerSteps = dict[tuple[str, ...], FrameRecord]
"""Digests of the maps of frames 0 … t → what the reference made of frame t."""

PROBES = {name: f"tracker_neck/{name}" for name in FEATURES}
"""The tracker's maps as they are called in a linked graph."""

_GIVEN = "given."
"""Before the name of a map that a graph is given, instead of computing it."""


def normalised_frame(frame_index: int, size: int, mean: RGB = HALF, std: RGB = HALF) -> Array:
    """Frame of the synthetic clip as the graph takes it, f32 [1, 3, size, size]; mean and deviation of red, green and
    blue in 0…1."""
    centre, spread = (np.array(of_rgb, np.float32)[:, None, None] for of_rgb in (mean, std))
    image: Array = ((seeded_frame(frame_index, size) - centre) / spread)[None]
    return image


def model_frame(model: TrackedModel, frame_index: int) -> Array:
    """Frame of the synthetic clip as `model` takes it."""
    return normalised_frame(frame_index, model.tracker.sizes.image_size, model.image_mean, model.image_std)


def _frame_feeds(ports: Mapping[str, Port], frame_index: int, num_frames: int) -> dict[str, Array]:
    """A synthetic frame, no prompt, an empty bank of zeros."""
    feeds: dict[str, Array] = {name: np.zeros(port.sides(), port.dtype) for name, port in ports.items()}
    feeds["image"] = normalised_frame(frame_index, feeds["image"].shape[-1])
    feeds["frame_index"], feeds["num_frames"] = np.array(frame_index, np.int32), np.array(num_frames, np.int32)
    feeds["point_labels"][:] = -1
    feeds["attend_memory"][:] = True
    return feeds


def propagation_feeds(ports: Sequence[Port], seed: int = 0) -> dict[str, Array]:
    """Inputs of a propagated frame with a full bank of seeded normal memories: slot 0 the conditioning frame 0, the
    others the frames just before this one. For comparisons before and after a pass."""
    by_name = {port.name: port for port in ports}
    random = np.random.default_rng(seed)
    slots, places = (by_name[f"bank.{kind}_frame"].sides()[1] for kind in ("memory", "pointer"))
    frame_index = max(slots, places)
    feeds = _frame_feeds(by_name, frame_index, 2 * frame_index)
    for kind, count in (("memory", slots), ("pointer", places)):
        feeds[f"bank.{kind}"] = random.standard_normal(by_name[f"bank.{kind}"].sides()).astype(np.float32)
        feeds[f"bank.{kind}_frame"][:] = [0, *range(frame_index - count + 1, frame_index)]
        feeds[f"bank.{kind}_conditioning"][:, 0] = True
    return feeds


def eager_maps(model: TrackedModel) -> ImageFeatures:
    """The eager image encoder's maps of the clip's frame 0."""
    with EAGER_LOCK, torch.inference_mode():
        return encode_image(model, torch.from_numpy(model_frame(model, 0)))


def verify_clip(
    graphs: Mapping[str, ir.Model],
    model: TrackedModel,
    program: Program,
    memory: MemorySpec,
    prompts: Mapping[int, FramePrompt],
    frames: int,
    tolerance: float,
    first_maps: ImageFeatures | None = None,
    open_graph: OpenGraph | None = None,
    known: EagerSteps | None = None,
    encoders: EncoderRuns | None = None,
    target: str = "onnx",
) -> tuple[Comparison, ...]:
    """The worst figure of each output over the clip.

    `graphs`: "track" and its specialisations. As in the runtime, each frame is run by the one for the fewest memories
    that may run: frame 0 by "track@first", frame t by the smallest "track@k" with k >= t, the rest by "track". Those
    that a short clip does not come to run its last frame too. `first_maps`: what `eager_maps` gave, so that it need
    not be computed for every target. `open_graph` chooses the engine (by default ONNX Runtime). `known` is read and
    filled: graphs and targets whose encoders agree to the bit share the reference's work. `encoders` too: a graph whose
    image encoder has run on a frame, for this `target`, runs from its maps on.
    """
    encoders = encoders or EncoderRuns()
    first_maps = first_maps or eager_maps(model)
    open_graph = open_graph or GraphSession
    ports = {port.name: port for port in program.inputs}
    worst: dict[str, Comparison] = {}
    tracker = eager_tracker(model, memory, frames)
    most = _most_memories(program, memory)
    waiting = sorted(graphs, key=lambda name: most[name])
    fingerprints = {name: encoders.fingerprint(graph, PROBES) for name, graph in graphs.items()}
    opened: tuple[tuple[str, bool], RunnableGraph] | None = None
    known = {} if known is None else known
    history: tuple[str, ...] = ()
    with torch.inference_mode():
        for t in range(frames):
            prompt = prompts.get(t, FramePrompt())
            feeds = _frame_feeds(ports, t, frames) | bank_of_reference(tracker, ports, t, memory)
            feeds["image"] = model_frame(model, t)
            count = len(prompt.labels)
            feeds["point_coords"][:, :count] = prompt.coords.numpy()
            feeds["point_labels"][:, :count] = prompt.labels.numpy()
            held = int((feeds["bank.memory_frame"] >= 0).any(0).sum())
            waiting = [name for name in waiting if most[name] >= held]
            for name in waiting if t == frames - 1 else waiting[:1]:
                maps = encoders.known(target, fingerprints[name], t)
                if opened is None or opened[0] != (name, maps is None):
                    opened = None  # one at a time: each has buffers for a whole step
                    opened = (name, maps is None), open_graph(_probed_or_behind(graphs[name], whole=maps is None))
                if maps is None:
                    found = opened[1].run(feeds)
                    if all(probe in found for probe in PROBES.values()):
                        maps = {of: found[probe] for of, probe in PROBES.items()}
                        encoders.record(target, fingerprints[name], t, maps)
                else:
                    found = opened[1].run(feeds | {_GIVEN + of: array for of, array in maps.items()})
                image = _features(model, maps, feeds["image"])
                seen = (*history[:t], _digest(image))
                if seen not in known:
                    for records in (tracker.conditioning, tracker.others):
                        records.pop(t, None)  # another graph's, of the same frame
                    with EAGER_LOCK:
                        known[seen] = tracker.step(t, image, prompt)
                record = known[seen]
                tracker.remember(t, record, prompt)
                history = seen
                comparisons = _compare_step(found, record, t, count > 0, tolerance) + _compare_kept(found, feeds, t)
                if t == 0:
                    comparisons += _compare_encoder(image, first_maps)
                for comparison in comparisons:
                    key = f"{name}: {comparison.what}"
                    if key not in worst or not comparison.largest_error <= worst[key].largest_error:
                        worst[key] = Comparison(key, comparison.largest_error, comparison.tolerance)
    return tuple(worst.values())


def _digest(maps: ImageFeatures) -> str:
    found = hashlib.sha256()
    for name in FEATURES:
        found.update(getattr(maps, name).contiguous().numpy().tobytes())
    return found.hexdigest()


def _most_memories(program: Program, memory: MemorySpec) -> dict[str, int]:
    """Name of each graph → how many memories the bank may hold when it runs; they lie in the first slots."""
    special = {one.name: 0 if one.filled is None else one.filled for one in program.specialisations}
    return {program.name: memory.slots, **special}


def _probed_or_behind(graph: ir.Model, whole: bool) -> ir.Model:
    if whole:
        return probed(graph, PROBES.values())
    return behind(graph, {probe: _GIVEN + name for name, probe in PROBES.items()})


def _features(model: TrackedModel, maps: Mapping[str, Array] | None, image: Array) -> ImageFeatures:
    """The graph's own maps; the eager encoder's if a pass has folded one of them away."""
    if maps is not None:
        return ImageFeatures(*(torch.from_numpy(maps[name]) for name in FEATURES))
    with EAGER_LOCK:
        return encode_image(model, torch.from_numpy(image))


def _compare_encoder(found: ImageFeatures, expected: ImageFeatures) -> list[Comparison]:
    return [
        compare(
            f"image encoder: {name}", getattr(found, name).numpy(), getattr(expected, name).numpy(), ENCODER_TOLERANCE
        )
        for name in FEATURES
    ]


def _compare_kept(found: Mapping[str, Array], feeds: Mapping[str, Array], t: int) -> list[Comparison]:
    """Every slot but this frame's leaves the graph as it entered."""
    comparisons = []
    for kind in ("memory", "pointer"):
        kept = found[f"next_bank.{kind}_frame"] != t
        names = (kind, *(f"{kind}_{what}" for what in ("frame", "conditioning", "accepted")))
        for name in (name for name in names if f"bank.{name}" in feeds):
            after, before = found[f"next_bank.{name}"][kept], feeds[f"bank.{name}"][kept]
            comparisons.append(compare(f"next_bank.{name}, other slots", after, before, 0.0))
    return comparisons


def _compare_step(
    found: Mapping[str, Array], record: FrameRecord, t: int, from_points: bool, tolerance: float
) -> list[Comparison]:
    output = record.output
    rows = len(found["mask_choice"])

    def held(name: str, array: Array, tensor: torch.Tensor, unit: float = 0.0) -> Comparison:
        return compare(name, array, np.repeat(tensor.numpy(), rows, axis=0), tolerance, unit)

    comparisons = [
        held("low_res_masks", found["low_res_masks"], output.low_res_masks),
        held("masks", found["masks"], output.masks),
        held("ious", found["ious"], output.ious),
        held("iou", found["iou"], output.iou),
        held("mask_choice", found["mask_choice"], output.mask_choice),
        held("object_score", found["object_score"], output.object_score, unit=1.0),
        held("object_pointer", found["object_pointer"], output.pointer),
    ]
    slot, place = found["next_bank.memory_frame"] == t, found["next_bank.pointer_frame"] == t
    ones = np.ones(rows, dtype=np.int64)
    comparisons.append(compare("frames written", slot.sum(1), ones, 0.0))
    comparisons.append(held("next_bank.pointer", found["next_bank.pointer"][place], output.pointer))
    for kind, written in (("memory", slot), ("pointer", place)):
        if (flags := found.get(f"next_bank.{kind}_accepted")) is not None:
            comparisons.append(
                compare(f"next_bank.{kind}_accepted", flags[written], np.full(rows, record.accepted), 0.0)
            )
    turned = float(np.mean((found["masks"] > 0) != (output.masks.numpy() > 0)))
    comparisons.append(Comparison("thresholded masks, share of pixels that differ", turned, MASK_SHARE))
    if not (from_points and turned):
        comparisons.append(held("next_bank.memory", found["next_bank.memory"][slot], record.memory))
    if record.motion is not None:
        motion = record.motion
        comparisons.append(held("phase", found["phase"], motion.phase))
        comparisons.append(
            held("next_bank.stable_frames", found["next_bank.stable_frames"], motion.state.stable_frames)
        )
        if not turned:  # a pixel on the edge moves the box that the filter is given
            comparisons.append(held("motion_score", found["motion_score"], motion.motion_score, unit=1.0))
            for name, state in (("mean", motion.state.mean), ("covariance", motion.state.covariance)):
                comparisons.append(held(f"next_bank.kalman_{name}", found[f"next_bank.kalman_{name}"], state))
    return comparisons
