"""The bank that a graph would hold, filled from the eager reference's dictionaries.

Only what later frames can attend under the policy has to be there; it is written here apart from the rule that the
graph follows (`samonnx.models.bank_policies`), so that the one checks the other.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from samonnx.graph_session import Array
from samonnx.models.reference_policies import SamuraiTracker
from samonnx.models.reference_tracker import ReferenceTracker
from samonnx.programs.program import Port
from samonnx.recipe import MemorySpec

__all__ = ["bank_of_reference"]


def bank_of_reference(
    tracker: ReferenceTracker, ports: Mapping[str, Port], frame_index: int, memory: MemorySpec
) -> dict[str, Array]:
    """One object's bank as the graph would hold it before `frame_index`, the same row for all objects of the program.

    `ports`: the program's inputs by name.
    """
    bank = {name: np.zeros(port.sides(), port.dtype) for name, port in ports.items() if name.startswith("bank.")}
    for kind in ("memory", "pointer"):
        bank[f"bank.{kind}_frame"][:] = -1
        flags = bank.get(f"bank.{kind}_accepted")
        frames = _kept_frames(tracker, frame_index, memory, by_acceptance=flags is not None)
        for slot, t in enumerate(frames[: bank[f"bank.{kind}_frame"].shape[1]]):
            record = tracker.record(t)
            bank[f"bank.{kind}"][:, slot] = (record.memory if kind == "memory" else record.output.pointer).numpy()
            bank[f"bank.{kind}_frame"][:, slot] = t
            bank[f"bank.{kind}_conditioning"][:, slot] = t in tracker.conditioning
            if flags is not None:
                flags[:, slot] = record.accepted
    if isinstance(tracker, SamuraiTracker):
        state = tracker.state_before(frame_index)
        bank["bank.kalman_mean"][:] = state.mean.numpy()
        bank["bank.kalman_covariance"][:] = state.covariance.numpy()
        bank["bank.stable_frames"][:] = state.stable_frames.numpy()
    return bank


def _kept_frames(tracker: ReferenceTracker, frame_index: int, memory: MemorySpec, by_acceptance: bool) -> list[int]:
    """Frames in the order in which they are worth a place: the closest conditioning frames, then the latest ones or,
    under a policy of acceptance, the previous one and the accepted ones, before what is left."""
    known = sorted({*tracker.conditioning, *tracker.others}, key=lambda t: abs(frame_index - t))
    kept = sorted(tracker.conditioning, key=lambda t: abs(frame_index - t))[: memory.conditioning_slots]
    if by_acceptance:
        kept += [t for t in known if t == frame_index - 1 or (t in tracker.others and tracker.record(t).accepted)]
    return list(dict.fromkeys(kept + known))
