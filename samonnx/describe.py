"""Describe: what the compiler knows about an artifact → its manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import cast

import onnx_ir as ir
from torch import nn

from samonnx import __version__
from samonnx.build_model import BuiltModel
from samonnx.emit import graph_file_name
from samonnx.engines import TARGETS, verifying_engine
from samonnx.foreign.factory import packages
from samonnx.manifest_notes import manifest_notes, sam_notes
from samonnx.models.efficientsam3 import EfficientSAM3
from samonnx.models.sam import Sam
from samonnx.models.sam2 import Sam2
from samonnx.models.sam_geometry import resized_size
from samonnx.models.sam_xmem import SamXMem, xmem_of
from samonnx.models.tracker import TrackedModel
from samonnx.programs.program import Program
from samonnx.programs.recipe_programs import tracked_model
from samonnx.programs.xmem import xmem_sizes
from samonnx.recipe import Recipe, StartSpec
from samonnx.recipe_passes import pass_notes
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
    XMemInfo,
)
from samonnx.verify import Comparison
from samonnx.xmem_description import SAM_XMEM, XMEM, xmem_info, xmem_preprocessing

__all__ = ["describe"]

TOOLS = ("torch", "onnx", "onnx-ir", "onnxscript", "onnx-graphsurgeon", "onnxruntime", "numpy")


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

    model, own = tracked_model(built.module), [program for program in programs if program.name not in recipe.calls]
    targets = dict.fromkeys(target for by_target in graphs.values() for target in by_target)
    tools = (*TOOLS, "openvino") if "openvino" in map(verifying_engine, targets) else TOOLS
    foreign = packages(recipe.model.factory, recipe.model.args) if recipe.calls else ()
    tools = tuple(dict.fromkeys((*tools, *(name for name in foreign if name != "samonnx"))))
    components = {component.name for program in own for component in program.components}
    return Manifest(
        recipe=recipe.name,
        recipe_digest=recipe.digest,
        weights=WeightsInfo(source=built.weights.source, digest=built.weights.digest, file="weights.bin", bytes=0),
        programs=tuple(program_info(name, by_target) for name, by_target in graphs.items()),
        bank=_bank(programs),
        preprocessing=_preprocessing(recipe, built.module) if own else None,
        memory=_memory(recipe, model) if model and any(program.bank for program in own) else None,
        xmem=_xmem(recipe, built.module) if own else None,
        text=_text(model) if model and "encode_text" in components else None,
        detection=_detection(recipe, model) if model and "decode" in components else None,
        prompt_preprocessing=_prompt_preprocessing(recipe, built.module) if own else None,
        pins=tuple(PinInfo(row.path, row.value, row.meaning) for row in built.pins.rows),
        tools={"samonnx": __version__, **{name: _version(name) for name in tools}},
        verification=tuple(
            VerificationInfo(name, target, figure.what, figure.tolerance, verifying_engine(target))
            for name, target, figure in verification
        ),
        targets={target: TARGETS[target] for target in targets},
        notes=(*_notes(recipe, built, own), *pass_notes(recipe.passes)),
    )


def _notes(recipe: Recipe, built: BuiltModel, own: Sequence[Program]) -> tuple[str, ...]:
    model = tracked_model(built.module)
    notes = manifest_notes(own, recipe.memory, model) if model and own else ()
    notes += sam_notes(own) if isinstance(built.module, Sam) else ()
    notes += XMEM if xmem_of(built.module) is not None and own else ()
    notes += SAM_XMEM if isinstance(built.module, SamXMem) and own else ()
    replaced = (f"replace: {row.path} was traced as {row.callable} gives it" for row in built.replaced)
    return (*notes, *replaced)


def _bank(programs: Sequence[Program]) -> tuple[BankPair, ...]:
    """A tensor of the bank is the same in all programs that have it."""
    pairs: dict[str, BankPair] = {}
    for program in programs:
        ports = {port.name: port for port in program.inputs}
        for tensor in program.bank:
            port = ports[tensor.input]
            pairs.setdefault(
                tensor.input, BankPair(tensor.input, tensor.output, port.dtype, port.sides(), tensor.empty)
            )
    return tuple(pairs.values())


def _memory(recipe: Recipe, model: TrackedModel) -> MemoryInfo:
    memory, spec = recipe.memory, recipe.programs["track"]
    return MemoryInfo(
        memory.conditioning_slots,
        memory.recent_slots,
        memory.pointer_slots,
        memory.policy,
        spec.objects,
        spec.points,
        corrections_attend_memory=isinstance(model, Sam2),
    )


def _preprocessing(recipe: Recipe, module: nn.Module) -> PreprocessingInfo | None:
    if isinstance(module, Sam):  # its predictor resizes uint8 pictures with Pillow, whatever they come from
        method, mean, std = "bilinear-antialias", module.image_mean, module.image_std
        return PreprocessingInfo(module.sizes.image_size, mean, std, method, method, fit="pad")
    if (followed := xmem_of(module)) is not None:
        return xmem_preprocessing(xmem_sizes(followed, recipe))
    model = tracked_model(module)
    if model is None:
        return None
    size = model.tracker.sizes.image_size
    if isinstance(model, Sam2):  # the loaders of its video predictor, see samonnx.runtime.preprocessing
        resizes = "bilinear-antialias", "bicubic-antialias"
        return PreprocessingInfo(size, model.image_mean, model.image_std, *resizes, binary_mask_prompts=True)
    return PreprocessingInfo(size, model.image_mean, model.image_std)


def _prompt_preprocessing(recipe: Recipe, module: nn.Module) -> PreprocessingInfo | None:
    if not isinstance(module, SamXMem) or "start" not in recipe.programs:
        return None
    sizes, image_size = xmem_sizes(module.xmem, recipe), module.sam.sizes.image_size
    height, width = resized_size((sizes.height, sizes.width), image_size)
    method, mean, std = "bilinear-antialias", module.sam.image_mean, module.sam.image_std
    return PreprocessingInfo(image_size, mean, std, method, method, fit="pad", height=height, width=width)


def _xmem(recipe: Recipe, module: nn.Module) -> XMemInfo | None:
    followed = xmem_of(module)
    if followed is None:
        return None
    start: StartSpec | None = recipe.programs.get("start")
    return xmem_info(xmem_sizes(followed, recipe), points=start.points if start else 0)


def _text(model: TrackedModel) -> TextInfo:
    return TextInfo(cast(EfficientSAM3, model).detector.sizes.context_length)


def _detection(recipe: Recipe, model: TrackedModel) -> DetectionInfo:
    places, detector = recipe.detection, cast(EfficientSAM3, model).detector
    scoring = "video" if detector.joint_box_scores else "image"
    return DetectionInfo(detector.sizes.queries, places.boxes, places.points, scoring, masks=places.masks)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
