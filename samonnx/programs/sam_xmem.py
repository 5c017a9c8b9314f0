"""`start`: XMem's step with SAM in front of it, for frames with clicks or boxes.

prompt_image ─ encode_trunk ─┐
points ──────────────────────┴ find_masks ─► prompt_masks, prompt_ious
                                   │ masks > 0, rows with a prompt
image, bank ───────────────────────┴ the step of `track` ─► probabilities, next_bank

A row with a prompt is as if its mask had been given to `track`; so the frame joins the memory. The bank may be empty
(first frame) or not (an object joins later, or is corrected).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from samonnx.models.sam_geometry import Size, resized_size
from samonnx.models.sam_xmem import SamXMem
from samonnx.programs.program import Component, Port, Program, Wire, example_tensors
from samonnx.programs.sam import encode_sam_image_program
from samonnx.programs.xmem import xmem_step_parts
from samonnx.programs.xmem_components import WriteBank
from samonnx.programs.xmem_ports import XMemSizes, bank_ports, bank_tensors, next_ports, probabilities_port

if TYPE_CHECKING:
    from samonnx.recipe import StartSpec

__all__ = ["LINKED_FEATURES", "FindMasks", "start_program"]

LINKED_FEATURES = "encode_trunk/features"
"""SAM's features as they are called within the linked graph."""

PINNED = {"memory_frame": True, "last_frame": False}
"""A mask is given."""


class FindMasks(nn.Module):
    """features f32 [1, D, h, w], point_coords f32 [O, K, 2], point_labels i32 [O, K] → the four of `PromptMasks`."""

    def __init__(self, model: SamXMem, frame: Size) -> None:
        super().__init__()
        self.model = model
        self.frame = frame

    def forward(self, features: Tensor, point_coords: Tensor, point_labels: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model.find_masks(features, point_coords, point_labels, self.frame))


def start_program(model: SamXMem, sizes: XMemSizes, spec: StartSpec) -> Program:
    """SAM's prediction as the given masks of one step."""
    encoder = encode_sam_image_program(model.sam)
    (encode,) = encoder.components
    prompt_image, *prompts = _prompt_ports(model, sizes, spec, encoder.inputs[0])
    step, changed = xmem_step_parts(model.xmem, sizes), WriteBank.changed
    given = {"masks", "is_given"}
    found = ("prompt_masks", "prompt_ious", "masks", "is_given")
    examples = example_tensors((*encoder.outputs, *prompts))
    find = Component(
        "find_masks",
        FindMasks(model, (sizes.height, sizes.width)).eval(),
        {name: examples[name] for name in ("features", "point_coords", "point_labels")},
        found,
        seen_in=frozenset({"start"}),
    )
    wires = [
        Wire("prompt_image", f"{encode.name}.image"),
        Wire(f"{encode.name}.features", "find_masks.features"),
        *(Wire(port.name, f"find_masks.{port.name}") for port in prompts),
        *(Wire(f"find_masks.{name}", name) for name in found[:2]),
        *(Wire(f"find_masks.{w.source}" if w.source in given else w.source, w.target) for w in step.wires),
        Wire(step.sources["probabilities"], "probabilities"),
        *(Wire(step.sources[name], f"next_bank.{name}") for name in changed),
    ]
    shown = [port for port in step.inputs if port.name not in given]
    return Program(
        "start",
        inputs=(prompt_image, *shown, *prompts, *bank_ports(sizes, step.bank_fields)),
        outputs=(probabilities_port(sizes), *_found_ports(sizes), *next_ports(sizes, changed)),
        components=(encode, find, *step.components),
        wires=tuple(wires),
        bank=bank_tensors(step.bank_fields),
        pinned=PINNED,
    )


def _prompt_ports(model: SamXMem, sizes: XMemSizes, spec: StartSpec, image: Port) -> tuple[Port, ...]:
    o, k, s = sizes.objects, spec.points, model.sam.sizes.image_size
    height, width = resized_size((sizes.height, sizes.width), s)
    part = f"the frame, resized to {height} x {width} (height x width), in the upper left corner of {s} x {s}"
    return (
        Port("prompt_image", image.dtype, image.shape, f"for SAM: {part}; {image.meaning}", image.range),
        Port("point_coords", "float32", (o, k, 2), "x, y in pixels of prompt_image", f"0 … {s}"),
        Port(
            "point_labels",
            "int32",
            (o, k),
            "1 positive, 0 negative, 2 and 3 the corners of the row's one box, -1 empty place; a row of empty places "
            "has no prompt",
            "-1 … 3",
        ),
    )


def _found_ports(sizes: XMemSizes) -> tuple[Port, ...]:
    o, frame = sizes.objects, (sizes.height, sizes.width)
    return (
        Port("prompt_masks", "float32", (o, *frame), "SAM's mask logits in the frame, of the mask where above 0"),
        Port("prompt_ious", "float32", (o,), "predicted IoU of SAM's mask; not confined to 0 … 1"),
    )
