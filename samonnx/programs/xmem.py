"""XMem's programs: `track`, a step over the bank; `consolidate`, which frees slots of a full working memory; and both
in one graph, `track_and_consolidate`, for callers that can run a single graph only.

image ─ encode_key ─ find_elements ─ read_elements ─ decode ─ merge_masks ─► probabilities
             └───────────────────────────────────────── encode_value ─┘ └─ write_bank ─► next_bank

A program takes the tensors of the bank that it reads and gives those that it may change: what it does not give stays as
it is. So may a specialisation give fewer of them than its program.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from samonnx.errors import SamonnxError
from samonnx.models.xmem import XMem
from samonnx.models.xmem_bank import MemorySizes, XMemBank
from samonnx.programs import xmem_components as parts
from samonnx.programs.program import Component, Port, Program, Specialisation, Wire, example_tensors
from samonnx.programs.xmem_ports import XMemSizes, bank_ports, bank_tensors, frame_ports, next_ports, probabilities_port

if TYPE_CHECKING:
    from samonnx.recipe import Recipe

__all__ = [
    "PLAIN_CHANGES",
    "XMemStepParts",
    "consolidate_program",
    "track_and_consolidate_program",
    "track_program",
    "xmem_sizes",
    "xmem_step_parts",
]

PLAIN_CHANGES = frozenset({"working_use", "working_life", "long_use", "long_life", "sensory", "frame_count"})
"""The tensors of the bank that a frame without masks, which is no memory frame, may change."""

_PROGRAMS = frozenset({"track", "track_and_consolidate", "start"})
"""Their verification sees every value of the components at the recipe's tolerance."""


@dataclass(frozen=True)
class XMemStepParts:
    """A step to be linked: `inputs` beside the bank, and `bank_fields` that it reads; `components` in order; `wires` to
    and between them, not those to outputs; `sources` of the outputs: "probabilities", and fields of the next bank."""

    inputs: tuple[Port, ...]
    bank_fields: tuple[str, ...]
    components: tuple[Component, ...]
    wires: tuple[Wire, ...]
    sources: Mapping[str, str]


def xmem_sizes(model: XMem, recipe: Recipe) -> XMemSizes:
    """Of a recipe's `memory` and `programs.track`. Raises SamonnxError where they are not XMem's."""
    from samonnx.recipe import XMemMemorySpec, XMemTrackSpec  # which needs pydantic

    memory, spec = recipe.memory, recipe.programs.get("track")
    if not isinstance(spec, XMemTrackSpec):
        found = "no `track`" if spec is None else "`track` without them"
        raise SamonnxError(
            "programs.track: XMem's programs take the size of a frame and the number of objects from it, such as "
            f"`track: {{objects: 1, height: 480, width: 854}}`; found {found}"
        )
    if not isinstance(memory, XMemMemorySpec):
        raise SamonnxError(f"memory: XMem's has the keys {', '.join(XMemMemorySpec.model_fields)}")
    return XMemSizes(model.widths, MemorySizes(**memory.model_dump()), spec.objects, spec.height, spec.width)


def xmem_step_parts(model: XMem, sizes: XMemSizes) -> XMemStepParts:
    """The components of a step and what feeds them."""
    features = {name: f"encode_key.{name}" for name in ("key", "shrinkage", "selection", "f16", "f8", "f4")}
    usage = {name: f"read_elements.{name}" for name in ("working_usage", "long_usage")}
    encoded = {name: f"encode_value.{name}" for name in ("value", "encoded")}

    def of(source: Mapping[str, str], *names: str) -> dict[str, str]:
        return {name: source[name] for name in names}

    def given(*names: str) -> dict[str, str]:
        return {name: name for name in names}

    made: list[tuple[str, torch.nn.Module, dict[str, str], tuple[str, ...]]] = [
        ("encode_key", parts.EncodeKey(model), given("image"), tuple(features)),
        (
            "find_elements",
            parts.FindElements(sizes.memory.top_k),
            of(features, "key", "selection"),
            ("weight", "element"),
        ),
        (
            "read_elements",
            parts.ReadElements(sizes.grid),
            {name: f"find_elements.{name}" for name in ("weight", "element")},
            ("readout", *usage),
        ),
        (
            "decode",
            parts.Decode(model),
            of(features, "f16", "f8", "f4") | {"readout": "read_elements.readout"},
            ("logits", "carried"),
        ),
        (
            "merge_masks",
            parts.MergeMasks(),
            {"logits": "decode.logits"} | given("masks", "is_given"),
            ("probabilities", "padded"),
        ),
        (
            "encode_value",
            parts.EncodeValue(model),
            given("image") | of(features, "f16") | {"padded": "merge_masks.padded"},
            tuple(encoded),
        ),
        (
            "write_bank",
            parts.WriteBank(),
            given("is_given", "memory_frame", "last_frame")
            | of(features, "key", "shrinkage", "selection")
            | usage
            | {"carried": "decode.carried"}
            | encoded,
            tuple(f"next_{name}" for name in parts.WriteBank.changed),
        ),
    ]
    inputs = frame_ports(sizes)
    examples = example_tensors((*inputs, *bank_ports(sizes, XMemBank._fields))) | _inner_examples(sizes)
    elements = sizes.memory.long_term + sizes.memory.working_frames * sizes.grid[0] * sizes.grid[1]
    components, wires, read = [], [], set[str]()
    for name, module, feeds, outputs in made:
        fields = module.fields if isinstance(module, parts.OfBank) else ()
        feeds = feeds | {field: f"bank.{field}" for field in fields}
        read.update(fields)
        shown = {target: examples[source] for target, source in feeds.items()}
        bounds = {"element": (0, elements)} if "element" in feeds else {}
        components.append(Component(name, module.eval(), shown, outputs, integers=bounds, seen_in=_PROGRAMS))
        wires += [Wire(source, f"{name}.{target}") for target, source in feeds.items()]
    sources = {name: f"write_bank.next_{name}" for name in parts.WriteBank.changed}
    sources["probabilities"] = "merge_masks.probabilities"
    fields = tuple(name for name in XMemBank._fields if name in read)
    return XMemStepParts(inputs, fields, tuple(components), tuple(wires), sources)


def _inner_examples(sizes: XMemSizes) -> dict[str, torch.Tensor]:
    """Zeros in the shapes of what components give each other."""
    (h, w), o, widths, memory = sizes.grid, sizes.objects, sizes.widths, sizes.memory
    trunk, k = widths.trunk, min(memory.top_k, memory.long_term + memory.working_frames * h * w)
    shapes: dict[str, tuple[int, ...]] = {
        "encode_key.key": (1, widths.key, h, w),
        "encode_key.shrinkage": (1, 1, h, w),
        "encode_key.selection": (1, widths.key, h, w),
        "encode_key.f16": (1, 16 * trunk, h, w),
        "encode_key.f8": (1, 8 * trunk, 2 * h, 2 * w),
        "encode_key.f4": (1, 4 * trunk, 4 * h, 4 * w),
        "find_elements.weight": (o, h * w, k),
        "read_elements.readout": (o, widths.value, h, w),
        "read_elements.working_usage": (memory.working_frames, h * w),
        "read_elements.long_usage": (memory.long_term,),
        "decode.logits": (o, 16 * h, 16 * w),
        "decode.carried": (o, widths.sensory, h, w),
        "merge_masks.padded": (1 + o, 16 * h, 16 * w),
        "encode_value.value": (o, widths.value, h, w),
        "encode_value.encoded": (o, widths.sensory, h, w),
    }
    examples = {name: torch.zeros(shape) for name, shape in shapes.items()}
    examples["find_elements.element"] = torch.zeros(o, h * w, k, dtype=torch.int64)
    return examples


def _consolidation(sizes: XMemSizes) -> Component:
    fields = parts.Consolidate.fields
    examples = example_tensors(bank_ports(sizes, fields))
    return Component(
        "consolidate",
        parts.Consolidate(sizes.memory).eval(),
        {name: examples[f"bank.{name}"] for name in fields},
        tuple(f"next_{name}" for name in parts.Consolidate.changed),
        seen_in=_PROGRAMS | {"consolidate"},
    )


def track_program(model: XMem, sizes: XMemSizes) -> Program:
    """One step. `track@plain`: a frame without masks that is no memory frame; `track@memory`: a memory frame that is
    not the clip's last."""
    step, changed = xmem_step_parts(model, sizes), parts.WriteBank.changed
    unchanged = tuple(f"next_bank.{name}" for name in changed if name not in PLAIN_CHANGES)
    return _program(
        "track",
        sizes,
        step,
        step.components,
        step.wires,
        step.bank_fields,
        {name: step.sources[name] for name in changed},
        specialisations=(
            Specialisation(
                "track@plain",
                "no mask is given, and the frame does not join the memory",
                pinned={"memory_frame": False, "is_given": False},
                unchanged=unchanged,
            ),
            Specialisation(
                "track@memory",
                "the frame joins the memory, and is not the last one",
                pinned={"memory_frame": True, "last_frame": False},
            ),
        ),
    )


def track_and_consolidate_program(model: XMem, sizes: XMemSizes) -> Program:
    """A step after which a full working memory is consolidated."""
    step, last = xmem_step_parts(model, sizes), _consolidation(sizes)
    after_step = {name: step.sources.get(name, f"bank.{name}") for name in XMemBank._fields}
    wires = [Wire(after_step[name], f"consolidate.{name}") for name in parts.Consolidate.fields]
    after = after_step | {name: f"consolidate.next_{name}" for name in parts.Consolidate.changed}
    return _program(
        "track_and_consolidate",
        sizes,
        step,
        (*step.components, last),
        (*step.wires, *wires),
        XMemBank._fields,
        after,
    )


def consolidate_program(sizes: XMemSizes) -> Program:
    """The bank alone: what is due before the next frame once every slot is filled."""
    part, fields = _consolidation(sizes), parts.Consolidate.fields
    changed = parts.Consolidate.changed
    outputs = next_ports(sizes, changed)
    return Program(
        name="consolidate",
        inputs=bank_ports(sizes, fields),
        outputs=outputs,
        components=(part,),
        wires=(
            *(Wire(f"bank.{name}", f"consolidate.{name}") for name in fields),
            *(Wire(f"consolidate.next_{name}", f"next_bank.{name}") for name in changed),
        ),
        bank=bank_tensors(fields),
    )


def _program(
    name: str,
    sizes: XMemSizes,
    step: XMemStepParts,
    components: tuple[Component, ...],
    wires: Iterable[Wire],
    bank_fields: tuple[str, ...],
    after: Mapping[str, str],
    specialisations: tuple[Specialisation, ...] = (),
) -> Program:
    """`after`: fields of the next bank and what gives them."""
    return Program(
        name=name,
        inputs=(*step.inputs, *bank_ports(sizes, bank_fields)),
        outputs=(probabilities_port(sizes), *next_ports(sizes, after)),
        components=components,
        wires=(
            *wires,
            Wire(step.sources["probabilities"], "probabilities"),
            *(Wire(source, f"next_bank.{field}") for field, source in after.items()),
        ),
        bank=bank_tensors(bank_fields),
        specialisations=specialisations,
    )
