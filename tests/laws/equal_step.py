"""One frame of an object as the graph gave it, held against the reference: results, memory, decisions, attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch

from samonnx.graph_session import GraphSession
from samonnx.models.reference_tracker import FrameRecord
from samonnx.models.tracker import Tracker
from samonnx.probed import probed
from samonnx.runtime.manifest import Manifest

from .scenario import Array, Step, relative

__all__ = ["TOLERANCE", "OpenedGraph", "assert_attends_as", "assert_equals", "differences", "errors_of"]

TOLERANCE = 1e-4

UNITS = {"object_score": 10.0, "motion_score": 1.0}
"""Magnitudes that scores near 0 are held against. An object's score is the small rest of two numbers of up to 55, see
`policies`."""

_INSIDE = tuple(
    f"read_bank/{name}" for name in ("attends", "memory_valid", "memory_position", "pointer_valid", "pointer_position")
)


class OpenedGraph:
    """A session on an emitted graph that also gives out which slots its memory attention counts, and where it puts
    them."""

    def __init__(self, folder: Path, program: str = "track", target: str = "onnx") -> None:
        self.manifest = Manifest.load(folder)
        self.program = self.manifest.program(program)
        graph = probed(ir.load(folder / self.program.files[target]), _INSIDE)
        assert set(_INSIDE) <= {value.name for value in graph.graph.outputs}, "what is looked at has been renamed"
        self._session = GraphSession(graph, threads=1)

    def run(self, inputs: Mapping[str, Array], /) -> dict[str, Array]:
        """The program's outputs, and those above."""
        return self._session.run(inputs)


def assert_equals(found: Mapping[str, Array], row: int, t: int, record: FrameRecord, prompted: bool) -> None:
    """Numbers within TOLERANCE; mask choice, slot, acceptance and phase exactly."""
    where = f"object {row}, frame {t}"
    off = {name: error for name, error in errors_of(found, row, t, record).items() if not error <= TOLERANCE}
    assert not off, f"{where}: {off}"
    assert found["mask_choice"][row] == record.output.mask_choice[0], where
    slot, place = (found[f"next_bank.{kind}_frame"][row] == t for kind in ("memory", "pointer"))
    assert (slot.sum(), place.sum()) == (1, 1), where
    assert found["next_bank.memory_conditioning"][row][slot] == prompted, where
    np.testing.assert_array_equal(found["next_bank.pointer"][row][place][0], found["object_pointer"][row])
    for kind, here in (("memory", slot), ("pointer", place)):
        if (flags := found.get(f"next_bank.{kind}_accepted")) is not None:
            assert flags[row][here] == record.accepted, where
    if record.motion is not None:
        assert found["phase"][row] == record.motion.phase[0], where
        assert found["next_bank.stable_frames"][row] == record.motion.state.stable_frames[0], where


def errors_of(found: Mapping[str, Array], row: int, t: int, record: FrameRecord) -> dict[str, float]:
    """Of each floating-point result of the frame, `relative`, over at least UNITS."""
    output, slot = record.output, found["next_bank.memory_frame"][row] == t
    pairs = {
        "low_res_masks": output.low_res_masks,
        "masks": output.masks,
        "ious": output.ious,
        "iou": output.iou,
        "object_score": output.object_score,
        "object_pointer": output.pointer,
    }
    arrays = {name: (found[name][row], tensor.numpy()[0]) for name, tensor in pairs.items()}
    arrays["memory"] = found["next_bank.memory"][row][slot][0], record.memory[0].numpy()
    if record.motion is not None:
        state = record.motion.state
        arrays["motion_score"] = found["motion_score"][row], record.motion.motion_score.numpy()[0]
        arrays["kalman_mean"] = found["next_bank.kalman_mean"][row], state.mean.numpy()[0]
        arrays["kalman_covariance"] = found["next_bank.kalman_covariance"][row], state.covariance.numpy()[0]
    return {name: relative(*pair, UNITS.get(name, 1e-12)) for name, pair in arrays.items()}


def differences(
    found: Mapping[str, Array], expected: Mapping[str, Array], rows: Sequence[int] | None = None
) -> dict[str, float]:
    """Of each array of `expected`, the worst row's `relative`; row i of what was found is held against `rows`[i]."""
    result = {}
    for name, array in expected.items():
        pairs = zip(found[name], array if rows is None else array[list(rows)], strict=True)
        result[name] = max(relative(one, other, UNITS.get(name, 1e-12)) for one, other in pairs)
    return result


def assert_attends_as(
    found: Mapping[str, Array], bank: Mapping[str, Array], row: int, t: int, step: Step, tracker: Tracker
) -> None:
    """The graph, which found `bank`, attends the frames that the reference does, each at its place in time."""
    where = f"object {row}, frame {t}"
    attends = found["read_bank/attends"][row]
    assert attends == (step.record.conditioned is not None), where
    if not attends:
        return
    parts = tracker.sizes.hidden_dim // tracker.sizes.memory_dim
    pointer_valid = found["read_bank/pointer_valid"][row].reshape(-1, parts)
    assert (pointer_valid == pointer_valid[:, :1]).all(), where
    valid = {"memory": found["read_bank/memory_valid"][row], "pointer": pointer_valid[:, 0]}
    frames = {kind: bank[f"bank.{kind}_frame"][row][flags].tolist() for kind, flags in valid.items()}
    assert sorted(frames["memory"]) == sorted(step.memories), where
    assert sorted(frames["pointer"]) == sorted(step.pointers), where
    rows = torch.tensor([step.memories[frame] for frame in frames["memory"]])
    placed = found["read_bank/memory_position"][row][valid["memory"]]
    assert relative(placed, tracker.memory_position(rows).detach().numpy()) <= 1e-5, f"{where}: places in time"
    if frames["pointer"]:
        distances = torch.tensor([[step.pointers[frame] for frame in frames["pointer"]]], dtype=torch.int32)
        expected = tracker.pointer_position(distances, torch.tensor(step.window))[0].detach().numpy()
        tokens = found["read_bank/pointer_position"][row][np.repeat(valid["pointer"], parts)]
        assert relative(tokens, expected) <= 1e-5, f"{where}: pointers' places in time"
