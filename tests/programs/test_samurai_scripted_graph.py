"""The decisions of SAMURAI's `track` program as graphs in ONNX Runtime, against the original's on its scripted clip.

The components that choose the mask, accept the frame, write and read the bank are traced alone and run over the
program's wires, from the empty bank on; what the other components would give comes from the script.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import numpy as np
import pytest
import torch

from samonnx.build_model import build_model
from samonnx.graph_session import GraphSession
from samonnx.models.tracker import TrackedModel, Tracker
from samonnx.programs.program import Program
from samonnx.programs.track import track_program
from samonnx.recipe import load_recipe
from samonnx.trace import trace
from tests.models.samurai_script import FRAMES, Array, assert_entries, decoded, listed, of_frame
from tests.tiny_model import ROOT

TRACED = ("read_bank", "choose_mask", "accept_frame", "write_bank")


@lru_cache(maxsize=1)
def made() -> tuple[Tracker, Program]:
    """At full size, but for the trunk, of which the traced components have nothing."""
    recipe = load_recipe(
        ROOT / "recipes" / "samurai_hiera_t.yaml",
        ("memory.samurai.stable_frames_threshold=6", "model.args.trunk=tiny"),
    )
    model = cast(TrackedModel, build_model(recipe).module)
    return model.tracker, track_program(model, recipe.memory, recipe.programs["track"])


@dataclass(frozen=True)
class Frame:
    """What the graphs had on a frame: the filter's results (`choose_mask`'s, by name); frames whose memory is attended,
    by slot, with rows of the temporal table; frames whose pointer is attended, by place, with the distance."""

    chosen: Mapping[str, Array]
    memories: dict[int, int]
    pointers: dict[int, int]


class GraphClip:
    """Steps the bank. A frame's memory and pointer are maps and vectors of its own index, plus one."""

    def __init__(self) -> None:
        self.tracker, self.program = made()
        self.components = {part.name: part for part in self.program.components}
        self.sources = {wire.target: wire.source for wire in self.program.wires}
        self.sessions = {name: GraphSession(trace(self.components[name]).model, threads=1) for name in TRACED}
        examples = {port.name: np.zeros(port.sides(), port.dtype) for port in self.program.inputs}
        self.idle = examples | {t.input: np.full_like(examples[t.input], t.empty) for t in self.program.bank}

    def run(self) -> list[Frame]:
        bank: dict[str, Array] = {}
        frames = []
        for t in range(FRAMES):
            values = self.step(t, bank)
            frames.append(self.seen(t, values))
            bank = {one.input: values[self.sources[one.output]] for one in self.program.bank}
        return frames

    def step(self, t: int, bank: Mapping[str, Array]) -> dict[str, Array]:
        """Every value known on the frame, by port and by "component.output"."""
        masks, shapes = decoded(t), self.components["write_bank"].inputs
        values: dict[str, Array] = {**self.idle, **bank}
        values |= {
            "frame_index": np.array(t, np.int32),
            "num_frames": np.array(FRAMES, np.int32),
            "attend_memory": np.array([True]),
            "encode_prompt.number_of_points": np.array([int(t == 0)], np.int32),
            "decode_masks.mask_logits": masks.logits.numpy(),
            "decode_masks.all_ious": masks.ious.numpy(),
            "decode_masks.tokens": masks.tokens.numpy(),
            "decode_masks.object_score": masks.object_score.numpy(),
            "take_mask.object_score": masks.object_score.numpy(),
            "take_mask.object_pointer": np.full(shapes["object_pointer"].shape, t + 1, np.float32),
            "encode_memory.memory": np.full(shapes["new_memory"].shape, t + 1, np.float32),
        }
        for name in TRACED:
            inputs = {of: values[self.sources[f"{name}.{of}"]] for of in self.components[name].inputs}
            found = {f"{name}.{of}": array for of, array in self.sessions[name].run(inputs).items()}
            values |= found
            if name == "choose_mask":
                values["take_mask.iou"] = masks.ious.numpy()[:, 1 + found["choose_mask.preferred"]]
        return values

    def seen(self, t: int, values: Mapping[str, Array]) -> Frame:
        part = "choose_mask."
        chosen = {name.removeprefix(part): array for name, array in values.items() if name.startswith(part)}
        return Frame(chosen, self.memories(values), self.pointers(t, values))

    def memories(self, values: Mapping[str, Array]) -> dict[int, int]:
        """Frame → row of the temporal table, told from the position of the first cell."""
        table = self.tracker.memory_position(torch.arange(7))[:, 0].numpy()
        found = {}
        for slot in np.flatnonzero(values["read_bank.memory_valid"]):
            frame = int(values["bank.memory_frame"][0, slot])
            assert (values["read_bank.slots"][0, slot] == frame + 1).all(), "another frame's memory"
            position = values["read_bank.memory_position"][0, slot, 0]
            (row,) = np.flatnonzero(np.abs(table - position).max(1) < 1e-5)
            found[frame] = int(row)
        return found

    def pointers(self, t: int, values: Mapping[str, Array]) -> dict[int, int]:
        """Frame → distance, which the position is compared with. A pointer is four tokens."""
        frames = values["bank.pointer_frame"][0]
        valid, tokens, position = (
            values[f"read_bank.{name}"][0].reshape(len(frames), 4, -1)
            for name in ("pointer_valid", "tokens", "pointer_position")
        )
        found = {}
        for place in np.flatnonzero(valid.all((1, 2))):
            distance = t - int(frames[place])
            assert (tokens[place] == frames[place] + 1).all(), "another frame's pointer"
            of_distance = self.tracker.pointer_position(torch.tensor([[distance]], dtype=torch.int32), torch.tensor(15))
            np.testing.assert_allclose(position[place], of_distance[0].numpy(), rtol=0, atol=1e-5)
            found[int(frames[place])] = distance
        assert len(found) == valid[:, 0].sum(), "a place whose tokens do not count alike"
        return found


@pytest.fixture(scope="module")
def clip() -> list[Frame]:
    with torch.inference_mode():
        return GraphClip().run()


def test_phase_count_and_choice_are_the_originals_on_every_frame(clip: list[Frame]) -> None:
    names = {"phase": "kf_branch", "next_stable_frames": "stable_frames", "preferred": "best_iou_index"}
    for name, original in names.items():
        assert [int(f.chosen[name][0]) for f in clip] == [int(of_frame(t)[original]) for t in range(FRAMES)], name


@pytest.mark.parametrize("name", ["kalman_mean", "kalman_covariance"])
def test_the_filters_state_after_every_frame_is_the_originals(clip: list[Frame], name: str) -> None:
    for t, frame in enumerate(clip):
        assert_entries(frame.chosen[f"next_{name}"][0], of_frame(t)[name.replace("kalman", "kf")], (t, name))


def test_the_motion_score_is_the_originals_and_counts_where_it_has_one(clip: list[Frame]) -> None:
    for t, frame in enumerate(clip):
        expected = of_frame(t)["kf_score"]
        assert bool(frame.chosen["motion_score_valid"][0]) is not bool(np.isnan(expected[0])), t
        np.testing.assert_allclose(frame.chosen["motion_score"], np.nan_to_num(expected), rtol=0, atol=1e-4)


def test_the_bank_attends_the_originals_memory_frames_in_its_order_and_without_gaps(clip: list[Frame]) -> None:
    """The conditioning frame has the table's last row, the newest other frame the first."""
    for t, frame in enumerate(clip):
        expected = listed(of_frame(t)["memory_frames"])
        found = sorted(frame.memories.items(), key=lambda one: -one[1])
        rows = [6, *range(len(expected) - 2, -1, -1)][: len(expected)]
        assert found == list(zip(expected, rows, strict=True)), t


def test_the_bank_attends_the_originals_pointers_in_its_order(clip: list[Frame]) -> None:
    """The conditioning frame first, then by distance."""
    for t, frame in enumerate(clip):
        found = sorted(frame.pointers, key=lambda one: (one != 0, frame.pointers[one]))
        assert found == listed(of_frame(t)["pointer_frames"]), t
