"""What the manifest says of XMem: sizes of its memory, how a frame is prepared, rules for whoever drives the graphs."""

from __future__ import annotations

from samonnx.models.xmem import IMAGE_MEAN, IMAGE_STD
from samonnx.programs.xmem_ports import XMemSizes
from samonnx.runtime.manifest import PreprocessingInfo, XMemInfo

__all__ = ["SAM_XMEM", "XMEM", "xmem_info", "xmem_preprocessing"]

XMEM = (
    "a program gives next_bank.X only for the tensors that it may change; one that it does not give stays as it is. "
    "track and track@memory leave long_key, long_shrinkage, long_value, long_frame and long_count; track@plain gives "
    "working_use, working_life, long_use, long_life, sensory and frame_count alone; consolidate gives working_frame "
    "and long_*",
    "memory_frame is true where a mask is given, or where bank.frame_count - bank.last_memory >= xmem.every; false on "
    "the clip's last frame, as in the original's evaluation (last_frame)",
    "consolidate is due before the next frame as soon as every bank.working_frame is 0 or more; a bank that is not "
    "full comes out of it as it went in. track_and_consolidate does it in the same call",
    "if consolidation is left out, the oldest frame but the first gives way to a new one: bounded, and forgetful",
    "an object joins with its first mask (object_since); before, its row is inert: probability 0, whatever its values "
    "are. Memory frames before any object are not written",
    "object_since of -1 takes an object away; its row may be given to another, which reads frames from then on",
    "slots may be permuted freely, in all working_* tensors at once",
    "top-k softmax: its maximum is subtracted, so that distant elements are not 0/0 (NaN in the original); with fewer "
    "elements than top_k all of them are read",
    "obsolete long-term elements: with exactly long_term - prototypes there, nothing goes (the original: IndexError)",
    "an object that joins later reads elements of frames from then on (the original aligns its values with the latest "
    "keys by their count)",
    "prototypes of equal usage: the older frame's first, then row by row; the original's order is its sort's",
)

SAM_XMEM = (
    "start is track@memory with SAM's answer as the given masks: its single mask (multimask off), cut at 0 in XMem's "
    "frame; rows without a prompt are predicted as ever. If no logit of a prompted row of prompt_masks is above 0, SAM "
    "found nothing: do not take the next bank",
    "prompt_image is the frame stretched to prompt_preprocessing.height x width in the upper left corner, 0 elsewhere "
    "after the normalisation; points are in its pixels",
)


def xmem_info(sizes: XMemSizes, points: int = 0) -> XMemInfo:
    """`points`: prompt places of a row of `start`, if there is one."""
    memory = sizes.memory
    return XMemInfo(
        memory.working_frames,
        memory.min_working_frames,
        memory.long_term,
        memory.prototypes,
        memory.every,
        memory.top_k,
        sizes.objects,
        sizes.height,
        sizes.width,
        points,
    )


def xmem_preprocessing(sizes: XMemSizes) -> PreprocessingInfo:
    """As the original's loader, which resizes float32 pixels bilinearly; masks are 0 and 1."""
    longer = max(sizes.height, sizes.width)
    return PreprocessingInfo(
        longer,
        IMAGE_MEAN,
        IMAGE_STD,
        "bilinear",
        "bilinear",
        binary_mask_prompts=True,
        height=sizes.height,
        width=sizes.width,
    )
