"""What a recipe with a motion model adds to the hand-made graph: bank tensors of other ranks and dtypes.

No Kalman filter; sums and means that a reader can follow, of all of them, so that a tensor that is lost, swapped or not
emptied shows in the logits.
"""

from __future__ import annotations

from samonnx.runtime.manifest import BankPair

__all__ = ["motion_pairs", "with_motion"]

CONSTANTS = "int64[2] axes12 = {1, 2}, int64[3] cube = {-1, 1, 1}, float zero = {0.0}, float half = {0.5},"

LOGITS = """low_3 = Add (low_2, painted_given)
    motion_mean = ReduceMean <keepdims = 0> (bank__kalman_mean, axis1)
    motion_spread = ReduceMean <keepdims = 0> (bank__kalman_covariance, axes12)
    motion_count = Cast <to = 1> (bank__stable_frames)
    memory_accepted_f = Cast <to = 1> (bank__memory_accepted)
    memory_accepted_share = ReduceMean <keepdims = 0> (memory_accepted_f, axis1)
    pointer_accepted_f = Cast <to = 1> (bank__pointer_accepted)
    pointer_accepted_share = ReduceMean <keepdims = 0> (pointer_accepted_f, axis1)
    motion_1 = Add (motion_mean, motion_spread)
    motion_2 = Add (motion_1, motion_count)
    motion_3 = Add (motion_2, memory_accepted_share)
    motion_4 = Sub (motion_3, pointer_accepted_share)
    motion_5 = Mul (motion_4, tenth)
    motion_6 = Tanh (motion_5)
    motion_column = Reshape (motion_6, column)
    low_res_masks = Add (low_3, motion_column)"""

NEXT_BANK = """
    mean_half = Mul (bank__kalman_mean, half)
    next_bank__kalman_mean = Add (mean_half, object_pointer)
    spread_half = Mul (bank__kalman_covariance, half)
    score_cube = Reshape (object_score, cube)
    next_bank__kalman_covariance = Add (spread_half, score_cube)
    next_bank__stable_frames = Add (bank__stable_frames, one)
    good = Less (object_score, zero)
    good_here = And (here, good)
    memory_accepted_kept = And (elsewhere, bank__memory_accepted)
    next_bank__memory_accepted = Or (good_here, memory_accepted_kept)
    pointer_accepted_kept = And (elsewhere, bank__pointer_accepted)
    next_bank__pointer_accepted = Or (here, pointer_accepted_kept)
}
"""


def motion_pairs(objects: int, slots: int) -> tuple[BankPair, ...]:
    """The tensors that SAMURAI's policy has, and the other ones have not."""
    tensors = {
        "kalman_mean": ("float32", (objects, 8), 0.0),
        "kalman_covariance": ("float32", (objects, 8, 8), 0.0),
        "stable_frames": ("int32", (objects,), 0),
        "memory_accepted": ("bool", (objects, slots), False),
        "pointer_accepted": ("bool", (objects, slots), False),
    }
    return tuple(BankPair(f"bank.{n}", f"next_bank.{n}", *rest) for n, rest in tensors.items())


def with_motion(graph: str) -> str:
    """The text of the hand-made graph, with these tensors read and written."""
    graph = graph.replace("float half = {0.5},", CONSTANTS)
    graph = graph.replace("low_res_masks = Add (low_2, painted_given)", LOGITS)
    return graph.rstrip().removesuffix("}") + NEXT_BANK.lstrip("\n")
