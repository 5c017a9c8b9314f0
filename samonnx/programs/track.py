"""The `track` program: one tracking step; image, prompts and bank in, masks, scores and the next bank out (DESIGN,
bank contract)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from samonnx.errors import SamonnxError
from samonnx.models.efficientsam3 import EfficientSAM3
from samonnx.programs import track_components as parts
from samonnx.programs.detect_ports import image_port
from samonnx.programs.program import BankTensor, Component, Port, Program, Specialisation, Wire, example_tensors
from samonnx.programs.segment import trunk_component

if TYPE_CHECKING:
    from samonnx.recipe import MemorySpec, TrackSpec

__all__ = ["BANK", "track_program"]

BANK = (
    BankTensor("memory", 0.0),
    BankTensor("memory_frame", -1),
    BankTensor("memory_conditioning", False),
    BankTensor("pointer", 0.0),
    BankTensor("pointer_frame", -1),
    BankTensor("pointer_conditioning", False),
)

BANK_MEANINGS = {
    "memory": ("spatial memory features as they enter memory attention, one map a slot", "finite"),
    "memory_frame": ("frame index of each slot; -1: the slot is empty", "-1, 0 … 2^29"),
    "memory_conditioning": ("whether the slot holds a conditioning frame (a frame with a prompt)", "false, true"),
    "pointer": ("object pointers, one vector a slot", "finite"),
    "pointer_frame": ("frame index of each pointer; -1: empty", "-1, 0 … 2^29"),
    "pointer_conditioning": ("whether the pointer comes from a conditioning frame", "false, true"),
}


def _bank_shapes(model: EfficientSAM3, memory: MemorySpec, objects: int) -> dict[str, tuple[int, ...]]:
    sizes = model.tracker.sizes
    places = memory.conditioning_slots + memory.pointer_slots - 1
    return {
        "memory": (objects, memory.slots, sizes.memory_dim, sizes.grid, sizes.grid),
        "memory_frame": (objects, memory.slots),
        "memory_conditioning": (objects, memory.slots),
        "pointer": (objects, places, sizes.hidden_dim),
        "pointer_frame": (objects, places),
        "pointer_conditioning": (objects, places),
    }


def _ports(model: EfficientSAM3, memory: MemorySpec, spec: TrackSpec) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    sizes = model.tracker.sizes
    o, k, s, low = spec.objects, spec.points, sizes.image_size, 4 * sizes.grid
    f32, i32, flag = "float32", "int32", "bool"
    bank_dtypes = {"memory": f32, "pointer": f32, "memory_frame": i32, "pointer_frame": i32}
    shapes = _bank_shapes(model, memory, o)

    def bank(prefix: str) -> list[Port]:
        return [
            Port(f"{prefix}.{t.name}", bank_dtypes.get(t.name, flag), shapes[t.name], *BANK_MEANINGS[t.name])
            for t in BANK
        ]

    inputs = [
        image_port(s),
        Port(
            "frame_index", i32, (), "index of this frame; to track backwards, number the frames backwards", "0 … 2^29"
        ),
        Port("num_frames", i32, (), "length of the clip; 0 when unknown (a stream)", "0 … 2^29"),
        Port("point_coords", f32, (o, k, 2), f"x, y in pixels of the {s} x {s} image", f"0 … {s}"),
        Port(
            "point_labels",
            i32,
            (o, k),
            "1 positive, 0 negative, 2 and 3 box corners (top left, bottom right), -1 empty place",
            "-1 … 3",
        ),
        Port(
            "attend_memory",
            flag,
            (o,),
            "false takes the no-memory path (a prompted frame); an empty bank takes it by itself",
            "",
        ),
        Port("mask_prompt", f32, (o, 1, s, s), "binary mask given as prompt", "0 or 1"),
        Port(
            "mask_prompt_valid", flag, (o,), "whether the object has a mask prompt; it silences the object's points", ""
        ),
        Port(
            "prev_logits",
            f32,
            (o, 1, low, low),
            "earlier low-resolution logits of this frame, with a correction click",
            "-32 … 32",
        ),
        Port("prev_logits_valid", flag, (o,), "whether the object has earlier logits", ""),
        *bank("bank"),
    ]
    outputs = [
        Port(
            "low_res_masks",
            f32,
            (o, 1, low, low),
            "mask logits at a quarter of 8/7 of the image size",
            "-1024 where absent",
        ),
        Port("masks", f32, (o, 1, s, s), "mask logits at image size", "-1024 where absent"),
        Port("ious", f32, (o, 3), "predicted IoU of each candidate", "0 … 1"),
        Port("iou", f32, (o, 1), "predicted IoU of the mask taken (1 for a mask prompt)", "0 … 1"),
        Port(
            "mask_choice", i32, (o,), "candidate taken; -1: the single-mask output, or the mask prompt itself", "-1 … 2"
        ),
        Port("object_score", f32, (o, 1), "logit: the object is present in this frame", ""),
        Port("object_pointer", f32, (o, sizes.hidden_dim), "this frame's object pointer", ""),
        *bank("next_bank"),
    ]
    return tuple(inputs), tuple(outputs)


def track_program(model: EfficientSAM3, memory: MemorySpec, spec: TrackSpec) -> Program:
    """The program of a recipe's `memory` and `programs.track`.

    Raises SamonnxError when the model has no temporal position for that many recent frames.
    """
    positions = model.tracker.sizes.memory_frames - 1
    if memory.recent_slots > positions:
        raise SamonnxError(
            f"memory.recent_slots: {memory.recent_slots} found, at most {positions} allowed: the checkpoint's table "
            f"tracker.maskmem_tpos_enc has {positions} rows for recent frames and one for conditioning frames"
        )
    inputs, outputs = _ports(model, memory, spec)
    tracker = model.tracker
    sizes, o = tracker.sizes, spec.objects
    example = example_tensors((*inputs, *outputs))
    d, cells, parts_per_pointer = sizes.hidden_dim, sizes.grid**2, sizes.hidden_dim // sizes.memory_dim
    pointer_tokens = (memory.conditioning_slots + memory.pointer_slots - 1) * parts_per_pointer

    features = torch.zeros(1, d, sizes.grid, sizes.grid)
    high_res_0 = torch.zeros(1, d // 8, 4 * sizes.grid, 4 * sizes.grid)
    high_res_1 = torch.zeros(1, d // 4, 2 * sizes.grid, 2 * sizes.grid)
    counts = torch.zeros(o, dtype=torch.int32)
    flags = torch.zeros(o, dtype=torch.bool)
    bank = {name: example[f"bank.{name}"] for name in (t.name for t in BANK)}

    def component(
        name: str, module: torch.nn.Module, given: Mapping[str, Tensor], returned: tuple[str, ...]
    ) -> Component:
        return Component(name, module.eval(), given, returned)

    def read_bank(name: str, filled: int | None = None) -> Component:
        return component(
            name,
            parts.ReadBank(tracker, memory.conditioning_slots, memory.recent_slots, memory.pointer_slots, filled),
            {name: example[name] for name in ("frame_index", "num_frames", "attend_memory")} | bank,
            ("slots", "memory_position", "memory_valid", "tokens", "pointer_position", "pointer_valid", "attends"),
        )

    memory_example = torch.zeros(o, 2, cells, sizes.memory_dim)
    pointer_example = torch.zeros(o, 2 * parts_per_pointer, sizes.memory_dim)
    attend_memory = Component(
        "attend_memory",
        parts.AttendMemory(tracker).eval(),
        {
            "features": features,
            "memory": memory_example,
            "memory_position": memory_example,
            "pointers": pointer_example,
            "pointer_position": pointer_example,
        },
        ("conditioned",),
        symbolic={
            "memory": {1: "memory_slots"},
            "memory_position": {1: "memory_slots"},
            "pointers": {1: "pointer_tokens"},
            "pointer_position": {1: "pointer_tokens"},
        },
        bindings={"memory_slots": memory.slots, "pointer_tokens": pointer_tokens},
        validity={"memory_slots": "memory_valid", "pointer_tokens": "pointer_valid"},
        seen_in=frozenset({"track", "step"}),
    )
    components = (
        trunk_component(model),
        Component(
            "tracker_neck",
            parts.TrackerNeck(model).eval(),
            {"trunk_map": torch.zeros(model.trunk_map_shape)},
            ("high_res_0", "high_res_1", "features"),
            seen_in=frozenset({"step"}),  # `track` is compared behind these maps
        ),
        read_bank("read_bank"),
        attend_memory,
        component(
            "encode_prompt",
            parts.EncodePrompt(tracker),
            {
                name: example[name]
                for name in (
                    "point_coords",
                    "point_labels",
                    "mask_prompt",
                    "mask_prompt_valid",
                    "prev_logits",
                    "prev_logits_valid",
                )
            },
            ("sparse", "sparse_valid", "dense", "number_of_points"),
        ),
        component(
            "decode_masks",
            parts.DecodeMasks(tracker),
            {
                "features": features,
                "conditioned": features.expand(o, -1, -1, -1),
                "attends": flags,
                "mask_prompt_valid": flags,
                "sparse": torch.zeros(
                    o, spec.points + 2 if tracker.sam_prompt_encoder.pad_with_empty_point else spec.points + 1, d
                ),
                "sparse_valid": torch.zeros(
                    o,
                    spec.points + 2 if tracker.sam_prompt_encoder.pad_with_empty_point else spec.points + 1,
                    dtype=torch.bool,
                ),
                "dense": features.expand(o, -1, -1, -1),
                "high_res_0": high_res_0,
                "high_res_1": high_res_1,
            },
            ("mask_logits", "all_ious", "tokens", "object_score"),
        ),
        component(
            "take_mask",
            parts.TakeMask(tracker),
            {
                "mask_logits": torch.zeros(o, 4, 4 * sizes.grid, 4 * sizes.grid),
                "all_ious": torch.zeros(o, 4),
                "tokens": torch.zeros(o, 4, d),
                "decoded_score": torch.zeros(o, 1),
                "number_of_points": counts,
                "attends": flags,
                "mask_prompt": example["mask_prompt"],
                "mask_prompt_valid": flags,
            },
            ("low_res_masks", "masks", "ious", "iou", "mask_choice", "object_score", "object_pointer"),
        ),
        component(
            "encode_memory",
            parts.EncodeMemory(tracker),
            {
                "features": features,
                "masks": example["masks"],
                "object_score": torch.zeros(o, 1),
                "number_of_points": counts,
            },
            ("memory",),
        ),
        component(
            "write_bank",
            parts.WriteBank(memory.conditioning_slots),
            {
                "frame_index": example["frame_index"],
                "number_of_points": counts,
                "mask_prompt_valid": flags,
                "new_memory": torch.zeros(o, sizes.memory_dim, sizes.grid, sizes.grid),
                "object_pointer": example["object_pointer"],
            }
            | bank,
            tuple(f"next_{t.name}" for t in BANK),
        ),
    )

    def partly_filled(k: int) -> Specialisation:
        """The slots from k on are empty, so their keys have softmax weight 0 and nothing else of them is read by the
        attention; the bank is written, and which slots count is decided, over all slots as ever."""
        bound = {**attend_memory.bindings, "memory_slots": k}
        return Specialisation(
            f"track@{k}",
            f"a bank that holds memories in its first {k} slots at most",
            filled=k,
            components={
                "read_bank": read_bank(f"read_bank@{k}", k),
                "attend_memory": replace(attend_memory, name=f"attend_memory@{k}", bindings=bound),
            },
        )

    empty_bank = {t.input: t.empty for t in BANK}
    first = Specialisation("track@first", "an empty bank: nothing has been tracked yet", pinned=empty_bank)
    return Program(
        name="track",
        inputs=inputs,
        outputs=outputs,
        components=components,
        wires=_wires(),
        bank=BANK,
        pinned={} if spec.mask_prompt else {"mask_prompt": 0.0, "mask_prompt_valid": False},
        specialisations=(first, *(partly_filled(k) for k in spec.filled_of(memory.slots))),
    )


def _wires() -> tuple[Wire, ...]:
    """Every component input and every program output, by what feeds it."""
    feeds = {
        "encode_trunk": {"image": "image"},
        "tracker_neck": {"trunk_map": "encode_trunk.trunk_map"},
        "read_bank": {name: name for name in ("frame_index", "num_frames", "attend_memory")}
        | {t.name: t.input for t in BANK},
        "attend_memory": {"features": "tracker_neck.features"}
        | {"memory": "read_bank.slots", "pointers": "read_bank.tokens"}
        | {
            name: f"read_bank.{name}"
            for name in ("memory_position", "pointer_position", "memory_valid", "pointer_valid")
        },
        "encode_prompt": {
            name: name
            for name in (
                "point_coords",
                "point_labels",
                "mask_prompt",
                "mask_prompt_valid",
                "prev_logits",
                "prev_logits_valid",
            )
        },
        "decode_masks": {
            "features": "tracker_neck.features",
            "conditioned": "attend_memory.conditioned",
            "attends": "read_bank.attends",
            "mask_prompt_valid": "mask_prompt_valid",
            "sparse": "encode_prompt.sparse",
            "sparse_valid": "encode_prompt.sparse_valid",
            "dense": "encode_prompt.dense",
            "high_res_0": "tracker_neck.high_res_0",
            "high_res_1": "tracker_neck.high_res_1",
        },
        "take_mask": {name: f"decode_masks.{name}" for name in ("mask_logits", "all_ious", "tokens")}
        | {
            "decoded_score": "decode_masks.object_score",
            "number_of_points": "encode_prompt.number_of_points",
            "attends": "read_bank.attends",
            "mask_prompt": "mask_prompt",
            "mask_prompt_valid": "mask_prompt_valid",
        },
        "encode_memory": {
            "features": "tracker_neck.features",
            "masks": "take_mask.masks",
            "object_score": "take_mask.object_score",
            "number_of_points": "encode_prompt.number_of_points",
        },
        "write_bank": {
            "frame_index": "frame_index",
            "number_of_points": "encode_prompt.number_of_points",
            "mask_prompt_valid": "mask_prompt_valid",
            "new_memory": "encode_memory.memory",
            "object_pointer": "take_mask.object_pointer",
        }
        | {t.name: t.input for t in BANK},
    }
    wires = [Wire(source, f"{part}.{target}") for part, given in feeds.items() for target, source in given.items()]
    results = ("low_res_masks", "masks", "ious", "iou", "mask_choice", "object_score", "object_pointer")
    wires += [Wire(f"take_mask.{name}", name) for name in results]
    wires += [Wire(f"write_bank.next_{t.name}", t.output) for t in BANK]
    return tuple(wires)
