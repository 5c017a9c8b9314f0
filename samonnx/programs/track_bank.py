"""The bank of the `track` program: its tensors, their shapes and meanings, under each memory policy."""

from __future__ import annotations

from dataclasses import dataclass

from samonnx.models.bank_policies import MemoryPolicy
from samonnx.models.tracker import TrackerSizes
from samonnx.programs.program import BankTensor, Port

__all__ = ["BANK", "BankLayout", "bank_layout"]

BANK = (
    BankTensor("memory", 0.0),
    BankTensor("memory_frame", -1),
    BankTensor("memory_conditioning", False),
    BankTensor("pointer", 0.0),
    BankTensor("pointer_frame", -1),
    BankTensor("pointer_conditioning", False),
)
"""What every policy keeps."""

MEMORY_ACCEPTED, POINTER_ACCEPTED = BankTensor("memory_accepted", False), BankTensor("pointer_accepted", False)
KALMAN = (BankTensor("kalman_mean", 0.0), BankTensor("kalman_covariance", 0.0), BankTensor("stable_frames", 0))

_MEANINGS = {
    "memory": ("spatial memory features as they enter memory attention, one map a slot", "finite"),
    "memory_frame": ("frame index of each slot; -1: the slot is empty", "-1, 0 … 2^29"),
    "memory_conditioning": ("whether the slot holds a conditioning frame (a frame with a prompt)", "false, true"),
    "pointer": ("object pointers, one vector a slot", "finite"),
    "pointer_frame": ("frame index of each pointer; -1: empty", "-1, 0 … 2^29"),
    "pointer_conditioning": ("whether the pointer comes from a conditioning frame", "false, true"),
    "memory_accepted": ("whether the memory policy accepted the slot's frame", "false, true"),
    "pointer_accepted": ("whether the memory policy accepted the pointer's frame", "false, true"),
    "kalman_mean": (
        "Kalman filter of the box: centre x, centre y, width / height, height in pixels of the image, and their change "
        "a frame; zeros before the first frame",
        "finite",
    ),
    "kalman_covariance": ("covariance of kalman_mean; zeros before the first frame", "finite"),
    "stable_frames": ("frames that the filter was corrected in since it started; 0: it starts anew", "0 …"),
}


@dataclass(frozen=True)
class BankLayout:
    """The tensors of a bank in the order of the graph's ports, by what they serve."""

    frames: tuple[BankTensor, ...]
    """Memories, pointers, and what is known of their frames."""
    accepted: tuple[BankTensor, ...]
    """Flags of acceptance, memory's before pointers'."""
    filter: tuple[BankTensor, ...]
    """The Kalman filter's state."""

    @property
    def tensors(self) -> tuple[BankTensor, ...]:
        return self.frames + self.accepted + self.filter

    @staticmethod
    def ports(tensors: tuple[BankTensor, ...], policy: MemoryPolicy, sizes: TrackerSizes, objects: int) -> list[Port]:
        """The inputs `bank.*`."""
        slots, places = (objects, policy.slots), (objects, policy.pointer_places)
        kinds: dict[str, tuple[str, tuple[int, ...]]] = {
            "memory": ("float32", (*slots, sizes.memory_dim, sizes.grid, sizes.grid)),
            "memory_frame": ("int32", slots),
            "pointer": ("float32", (*places, sizes.hidden_dim)),
            "pointer_frame": ("int32", places),
            "kalman_mean": ("float32", (objects, 8)),
            "kalman_covariance": ("float32", (objects, 8, 8)),
            "stable_frames": ("int32", (objects,)),
        }
        flags = {"memory": ("bool", slots), "pointer": ("bool", places)}
        found = [(t, *(kinds.get(t.name) or flags[t.name.split("_")[0]])) for t in tensors]
        return [Port(t.input, dtype, shape, *_MEANINGS[t.name]) for t, dtype, shape in found]


def bank_layout(policy: MemoryPolicy) -> BankLayout:
    """The bank that `policy` needs."""
    flags = ((MEMORY_ACCEPTED, policy.accepts_memories), (POINTER_ACCEPTED, policy.accepts_pointers))
    return BankLayout(BANK, tuple(flag for flag, kept in flags if kept), KALMAN if policy.chooses_by_motion else ())
