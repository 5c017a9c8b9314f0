"""Describe: what the compiler knows about an artifact → its manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import cast

import onnx_ir as ir

from samonnx import __version__
from samonnx.build_model import BuiltModel
from samonnx.emit import graph_file_name
from samonnx.engines import TARGETS, verifying_engine
from samonnx.models.detector import Detector
from samonnx.models.efficientsam3 import EfficientSAM3
from samonnx.programs.program import Program
from samonnx.recipe import Recipe
from samonnx.runtime.manifest import (
    BankPair,
    DetectionInfo,
    Manifest,
    MemoryInfo,
    PinInfo,
    PortInfo,
    PreprocessingInfo,
    ProgramInfo,
    TextInfo,
    VerificationInfo,
    WeightsInfo,
)
from samonnx.verify import Comparison

__all__ = ["describe", "rounded_up"]

TOOLS = ("torch", "onnx", "onnx-ir", "onnxscript", "onnx-graphsurgeon", "onnxruntime", "numpy")

NOTES = (
    "bank.memory_conditioning and bank.pointer_conditioning mark frames that had a prompt; slots may be permuted "
    "freely, together with their frame and flag",
    "pointer places: conditioning_slots + pointer_slots - 1, so that conditioning frames never push out recent ones",
    "visit frames in increasing frame_index; of more conditioning frames than conditioning_slots the closest are "
    "attended, and an older one counts as a recent frame while it is among them",
    "to correct a frame that was tracked already, give the graph the bank from before that frame",
    "an object with an empty bank and no prompt is not tracked: its bank stays empty",
    "a program with filled: k gives what the one that it specialises gives while bank.memory_frame[:, k:] is -1 for "
    "all objects; it takes and gives the whole bank. A new frame takes the first empty slot, so this holds for the k "
    "frames after an object's first",
    "memory is kept in float32 (upstream's predictor rounds it to bfloat16)",
    "words fill token_ids as CLIP's tokeniser does; an image, a text and examples give 'queries' detections, of which "
    "those with a score above detection.score_threshold are shown",
    "step: outputs of the detector are called detection.…, since masks of tracked objects go by the name masks",
    "mask prompts of the tracker are taken as upstream's track_step takes them (its predictor resizes to 16 x grid and "
    "thresholds)",
)


def rounded_up(error: float) -> float:
    """One significant digit, so that the last bit of a sum does not change the manifest's bytes."""
    return float(f"{error:.0e}")


def describe(
    recipe: Recipe,
    built: BuiltModel,
    programs: Sequence[Program],
    graphs: Mapping[str, Mapping[str, ir.Model]],
    verification: Sequence[tuple[str, str, Comparison]],
) -> Manifest:
    """`graphs`: program name → target → graph; `verification`: (program, target, figure). Files and sizes are filled
    in by emit."""
    owners = {name: program for program in programs for name in program.names}

    def program_info(name: str, by_target: Mapping[str, ir.Model]) -> ProgramInfo:
        graph, program = next(iter(by_target.values())).graph, owners[name]
        ports = {port.name: port for port in (*program.inputs, *program.outputs)}
        special = next((special for special in program.specialisations if special.name == name), None)

        def infos(values: Sequence[ir.Value]) -> tuple[PortInfo, ...]:
            found = [ports[str(value.name)] for value in values]
            return tuple(PortInfo(port.name, port.dtype, port.shape, port.meaning, port.range) for port in found)

        return ProgramInfo(
            name=name,
            files={target: graph_file_name(name, target) for target in by_target},
            inputs=infos(graph.inputs),
            outputs=infos(graph.outputs),
            specialises=program.name if special else None,
            pinned=tuple(special.pinned) if special and special.pinned else tuple(program.pinned),
            filled=special.filled if special else None,
        )

    model = cast(EfficientSAM3, built.module)
    targets = dict.fromkeys(target for by_target in graphs.values() for target in by_target)
    tools = (*TOOLS, "openvino") if "openvino" in map(verifying_engine, targets) else TOOLS
    components = {component.name for program in programs for component in program.components}
    return Manifest(
        recipe=recipe.name,
        recipe_digest=recipe.digest,
        weights=WeightsInfo(source=built.weights.source, digest=built.weights.digest, file="weights.bin", bytes=0),
        programs=tuple(program_info(name, by_target) for name, by_target in graphs.items()),
        bank=_bank(programs),
        preprocessing=PreprocessingInfo(size=model.tracker.sizes.image_size),
        memory=_memory(recipe) if any(program.bank for program in programs) else None,
        text=TextInfo(model.detector.sizes.context_length) if "encode_text" in components else None,
        detection=_detection(recipe, model.detector) if "decode" in components else None,
        pins=tuple(PinInfo(row.path, row.value, row.meaning) for row in built.pins.rows),
        tools={"samonnx": __version__, **{name: _version(name) for name in tools}},
        verification=tuple(
            VerificationInfo(
                name,
                target,
                figure.what,
                rounded_up(figure.largest_error),
                figure.tolerance,
                verifying_engine(target),
            )
            for name, target, figure in verification
        ),
        targets={target: TARGETS[target] for target in targets},
        notes=NOTES,
    )


def _bank(programs: Sequence[Program]) -> tuple[BankPair, ...]:
    """The bank is the same in all programs that have one."""
    for program in programs:
        if program.bank:
            ports = {port.name: port for port in program.inputs}
            return tuple(
                BankPair(
                    tensor.input, tensor.output, ports[tensor.input].dtype, ports[tensor.input].shape, tensor.empty
                )
                for tensor in program.bank
            )
    return ()


def _memory(recipe: Recipe) -> MemoryInfo:
    memory, spec = recipe.memory, recipe.programs["track"]
    return MemoryInfo(
        memory.conditioning_slots, memory.recent_slots, memory.pointer_slots, memory.policy, spec.objects, spec.points
    )


def _detection(recipe: Recipe, detector: Detector) -> DetectionInfo:
    places = recipe.detection
    scoring = "video" if detector.joint_box_scores else "image"
    return DetectionInfo(detector.sizes.queries, places.boxes, places.points, scoring, masks=places.masks)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
