"""The `track` program: one tracking step; image, prompts and bank in, masks, scores and the next bank out (DESIGN,
bank contract)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from samonnx.errors import SamonnxError
from samonnx.models.bank_policies import MemoryPolicy, Samurai
from samonnx.models.tracker import TrackedModel
from samonnx.programs import bank_components, track_components
from samonnx.programs.image_encoder import frame_encoder
from samonnx.programs.policy import memory_policy
from samonnx.programs.program import Component, Port, Program, Specialisation, Wire, example_tensors
from samonnx.programs.track_bank import bank_layout
from samonnx.programs.track_ports import track_ports
from samonnx.programs.track_wires import PROMPT, track_wires

if TYPE_CHECKING:
    from samonnx.recipe import MemorySpec, TrackSpec

__all__ = ["track_program"]


def track_program(model: TrackedModel, memory: MemorySpec, spec: TrackSpec) -> Program:
    """The program of a recipe's `memory` and `programs.track`.

    Raises SamonnxError when the model has no temporal position for that many recent frames.
    """
    positions = model.tracker.sizes.memory_frames - 1
    if memory.recent_slots > positions:
        raise SamonnxError(
            f"memory.recent_slots: {memory.recent_slots} found, at most {positions} allowed: the checkpoint's table "
            f"maskmem_tpos_enc has {positions} rows for recent frames and one for conditioning frames"
        )
    policy = memory_policy(memory)
    inputs, outputs = track_ports(model, policy, spec)
    encoder, layout = frame_encoder(model), bank_layout(policy)
    own = _Components(model, policy, spec, (*inputs, *outputs))
    attend_memory = own.attend_memory()

    def partly_filled(k: int) -> Specialisation:
        """The slots from k on are empty, so their keys have softmax weight 0 and nothing else of them is read by the
        attention; the bank is written, and which slots count is decided, over all slots as ever."""
        bound = {**attend_memory.bindings, "memory_slots": k}
        return Specialisation(
            f"track@{k}",
            f"a bank that holds memories in its first {k} slots at most",
            filled=k,
            components={
                "read_bank": own.read_bank(f"read_bank@{k}", k),
                "attend_memory": replace(attend_memory, name=f"attend_memory@{k}", bindings=bound),
            },
        )

    empty_bank = {t.input: t.empty for t in layout.tensors}
    first = Specialisation("track@first", "an empty bank: nothing has been tracked yet", pinned=empty_bank)
    wires = track_wires(policy, encoder.feeds)
    return Program(
        name="track",
        inputs=inputs,
        outputs=outputs,
        components=(*encoder.components, own.read_bank("read_bank"), attend_memory, *own.behind_the_attention()),
        wires=tuple(wires) + tuple(Wire(_source(port, policy), port.name) for port in outputs),
        bank=layout.tensors,
        pinned={} if spec.mask_prompt else {"mask_prompt": 0.0, "mask_prompt_valid": False},
        specialisations=(first, *(partly_filled(k) for k in spec.filled_of(memory.slots))),
    )


def _source(port: Port, policy: MemoryPolicy) -> str:
    """What gives the output: the bank is written by `write_bank`, but for the filter's state."""
    name = port.name.replace(".", "_")
    if not name.startswith("next_bank_"):
        return f"choose_mask.{name}" if name in ("phase", "motion_score") else f"take_mask.{name}"
    of_filter = {f"next_bank_{t.name}" for t in bank_layout(policy).filter}
    return f"{'choose_mask' if name in of_filter else 'write_bank'}.{name.replace('next_bank_', 'next_')}"


class _Components:
    """Makes the components, with example inputs of the right shapes."""

    def __init__(self, model: TrackedModel, policy: MemoryPolicy, spec: TrackSpec, ports: tuple[Port, ...]) -> None:
        self._tracker, self._policy, self._spec = model.tracker, policy, spec
        self._example = example_tensors(ports)
        self._layout = bank_layout(policy)
        sizes, o = model.tracker.sizes, spec.objects
        self._sizes = sizes
        d, g = sizes.hidden_dim, sizes.grid
        self._features = torch.zeros(1, d, g, g)
        self._decoded = {
            "mask_logits": torch.zeros(o, 4, 4 * g, 4 * g),
            "all_ious": torch.zeros(o, 4),
            "tokens": torch.zeros(o, 4, d),
            "decoded_score": torch.zeros(o, 1),
        }
        self._counts = {"number_of_points": torch.zeros(o, dtype=torch.int32)}
        self._attends = {"attends": torch.zeros(o, dtype=torch.bool)}
        self._by_mask = {"mask_prompt_valid": torch.zeros(o, dtype=torch.bool)}

    def _given(self, *names: str) -> dict[str, Tensor]:
        return {name: self._example[name] for name in names}

    def _frames_of_bank(self) -> dict[str, Tensor]:
        return {t.name: self._example[t.input] for t in self._layout.frames + self._layout.accepted}

    def read_bank(self, name: str, filled: int | None = None) -> Component:
        return Component(
            name,
            bank_components.ReadBank(self._tracker, self._policy, filled).eval(),
            self._given("frame_index", "num_frames", "attend_memory") | self._frames_of_bank(),
            ("slots", "memory_position", "memory_valid", "tokens", "pointer_position", "pointer_valid", "attends"),
        )

    def attend_memory(self) -> Component:
        sizes, o = self._sizes, self._spec.objects
        parts = sizes.hidden_dim // sizes.memory_dim
        memory, pointer = (
            torch.zeros(o, 2, sizes.grid**2, sizes.memory_dim),
            torch.zeros(o, 2 * parts, sizes.memory_dim),
        )
        slots, tokens = {1: "memory_slots"}, {1: "pointer_tokens"}
        return Component(
            "attend_memory",
            track_components.AttendMemory(self._tracker).eval(),
            {
                "features": self._features,
                "memory": memory,
                "memory_position": memory,
                "pointers": pointer,
                "pointer_position": pointer,
            },
            ("conditioned",),
            symbolic={"memory": slots, "memory_position": slots, "pointers": tokens, "pointer_position": tokens},
            bindings={"memory_slots": self._policy.slots, "pointer_tokens": self._policy.pointer_places * parts},
            validity={"memory_slots": "memory_valid", "pointer_tokens": "pointer_valid"},
            seen_in=frozenset({"track", "step"}),
        )

    def behind_the_attention(self) -> tuple[Component, ...]:
        """From the conditioned features on, in order."""
        choosing = (self._choose_mask(self._policy),) if isinstance(self._policy, Samurai) else ()
        accepting = (self._accept_frame(),) if self._policy.accepts_memories else ()
        return (
            self._encode_prompt(),
            self._decode_masks(),
            *choosing,
            self._take_mask(),
            self._encode_memory(),
            *accepting,
            self._write_bank(),
        )

    def _encode_prompt(self) -> Component:
        return Component(
            "encode_prompt",
            track_components.EncodePrompt(self._tracker).eval(),
            self._given(*PROMPT),
            ("sparse", "sparse_valid", "dense", "number_of_points"),
        )

    def _decode_masks(self) -> Component:
        sizes, o = self._sizes, self._spec.objects
        d, g = sizes.hidden_dim, sizes.grid
        tokens = self._spec.points + (2 if self._tracker.sam_prompt_encoder.pad_with_empty_point else 1)
        return Component(
            "decode_masks",
            track_components.DecodeMasks(self._tracker).eval(),
            {"features": self._features, "conditioned": self._features.expand(o, -1, -1, -1)}
            | self._attends
            | self._by_mask
            | {
                "sparse": torch.zeros(o, tokens, d),
                "sparse_valid": torch.zeros(o, tokens, dtype=torch.bool),
                "dense": self._features.expand(o, -1, -1, -1),
                "high_res_0": torch.zeros(1, d // 8, 4 * g, 4 * g),
                "high_res_1": torch.zeros(1, d // 4, 2 * g, 2 * g),
            },
            ("mask_logits", "all_ious", "tokens", "object_score"),
        )

    def _choose_mask(self, policy: Samurai) -> Component:
        return Component(
            "choose_mask",
            track_components.ChooseMask(self._tracker, policy).eval(),
            self._decoded
            | self._counts
            | self._attends
            | self._by_mask
            | {"memory_frame": self._example["bank.memory_frame"]}
            | {t.name: self._example[t.input] for t in self._layout.filter},
            (
                "preferred",
                "phase",
                "motion_score",
                "motion_score_valid",
                *(f"next_{t.name}" for t in self._layout.filter),
            ),
            # Seeded noise is no state that a filter can be in.
            seen_in=frozenset({"track", "step"}),
        )

    def _take_mask(self) -> Component:
        preferred = {"preferred": torch.zeros(self._spec.objects, dtype=torch.int32)}
        return Component(
            "take_mask",
            track_components.TakeMask(self._tracker).eval(),
            self._decoded
            | self._counts
            | self._attends
            | self._given("mask_prompt", "mask_prompt_valid")
            | (preferred if self._policy.chooses_by_motion else {}),
            ("low_res_masks", "masks", "ious", "iou", "mask_choice", "object_score", "object_pointer"),
        )

    def _encode_memory(self) -> Component:
        return Component(
            "encode_memory",
            track_components.EncodeMemory(self._tracker).eval(),
            {"features": self._features}
            | self._given("masks")
            | {"object_score": torch.zeros(self._spec.objects, 1)}
            | self._counts
            | self._by_mask,
            ("memory",),
        )

    def _accept_frame(self) -> Component:
        o = self._spec.objects
        motion = {"motion_score": torch.zeros(o), "motion_score_valid": torch.zeros(o, dtype=torch.bool)}
        return Component(
            "accept_frame",
            bank_components.AcceptFrame(self._policy).eval(),
            {"iou": torch.zeros(o, 1), "object_score": torch.zeros(o, 1)}
            | (motion if self._policy.chooses_by_motion else {}),
            ("accepted",),
        )

    def _write_bank(self) -> Component:
        sizes, o = self._sizes, self._spec.objects
        flag = {"accepted": torch.zeros(o, dtype=torch.bool)}
        return Component(
            "write_bank",
            bank_components.WriteBank(self._policy).eval(),
            self._given("frame_index")
            | self._counts
            | self._by_mask
            | {"new_memory": torch.zeros(o, sizes.memory_dim, sizes.grid, sizes.grid)}
            | self._given("object_pointer")
            | self._frames_of_bank()
            | (flag if self._layout.accepted else {}),
            tuple(f"next_{t.name}" for t in self._layout.frames + self._layout.accepted),
        )
