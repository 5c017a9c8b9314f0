"""The tracker that SAM 2 and SAM 3 share: what happens to one frame between its features and its masks, pointer and
memory.

Ravi et al., "SAM 2" (2024); upstream `modeling/sam2_base.py` (SAM 2) and `model/sam3_tracker_base.py` (SAM 3). The
parts here are free of state: which memories are attended is given. `samonnx.programs.track` composes them without
branches over a padded bank; `samonnx.models.reference_tracker` composes the same parts with Python dictionaries, as
the original does. The two members name some modules differently: `samonnx.models.sam2`, `samonnx.models.sam3_tracker`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from samonnx.errors import SamonnxError
from samonnx.models.antialiased_resize import antialiased_resize
from samonnx.models.layers import MLP
from samonnx.models.mask_decoder import DecodedMasks, MaskDecoder
from samonnx.models.position_encoding import sine_1d, sine_map
from samonnx.models.prompt_encoder import PromptEncoder
from samonnx.pins import BranchPoint, declare

__all__ = ["RGB", "FrameOutput", "TrackedModel", "Tracker", "TrackerSizes"]

ABSENT_LOGIT = -1024.0
MASK_SCALE, MASK_BIAS = 20.0, -10.0

RGB = tuple[float, float, float]


@dataclass(frozen=True)
class TrackerSizes:
    """Widths and sizes. The grid is image_size / `stride` cells wide (14 in SAM 3, 16 in SAM 2), low-resolution masks
    are 4 x grid."""

    image_size: int = 1008
    hidden_dim: int = 256
    memory_dim: int = 64
    ffn_dim: int = 2048
    memory_frames: int = 7
    stride: int = 14

    def __post_init__(self) -> None:
        for name in ("image_size", "hidden_dim", "memory_dim", "ffn_dim"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise SamonnxError(f"model.args.{name}: {value!r} found, a whole number of at least 1 expected")
        if self.hidden_dim % 32:
            raise SamonnxError(
                f"model.args.hidden_dim: {self.hidden_dim} found, a multiple of 32 expected (8 heads, channels / 8)"
            )
        if self.image_size % (2 * self.stride):
            raise SamonnxError(
                f"image_size {self.image_size}: expected a multiple of {2 * self.stride} "
                f"(patches of {self.stride} pixels, an even grid)"
            )
        if self.hidden_dim % self.memory_dim:
            raise SamonnxError(f"hidden_dim {self.hidden_dim} is not a multiple of memory_dim {self.memory_dim}")

    @property
    def grid(self) -> int:
        """Side of the image embedding, h = w."""
        return self.image_size // self.stride


@dataclass(frozen=True)
class FrameOutput:
    """What a frame yields for each object: masks as logits, f32 [O, 1, 4h, 4w] and [O, 1, S, S]; `ious` f32 [O, 3] of
    the candidates, `iou` f32 [O, 1] of the mask taken, `mask_choice` i32 [O]; `object_score` f32 [O, 1]; `pointer`
    f32 [O, D]."""

    low_res_masks: Tensor
    masks: Tensor
    ious: Tensor
    iou: Tensor
    mask_choice: Tensor
    object_score: Tensor
    pointer: Tensor


class Tracker(nn.Module, ABC):
    """Parameters and the stateless parts of a tracking step. Shapes as in `docs` of the bank contract: O objects, D
    hidden, C memory width.

    A subclass owns the memory attention and the memory encoder, whose names differ between the released files, and
    hands them on by `attend_memory` and `memory_map`. `numbered_mlp`: see `TwoWayBlock`.
    """

    branch_points: ClassVar[tuple[BranchPoint, ...]] = (
        BranchPoint("multimask_min_points", (0, 1, 2), "fewest points at which three candidates are made"),
        BranchPoint("multimask_max_points", (0, 1, 2, 3, 4), "most points at which three candidates are made"),
        BranchPoint(
            "multimask_for_tracking",
            (True, False),
            "candidates also on frames that attend memory (false: only where none is)",
        ),
        BranchPoint(
            "binarize_mask_from_points",
            (True, False),
            "memory of a frame with points is encoded from the thresholded mask",
        ),
        BranchPoint(
            "non_overlap_masks_for_memory", (False, True), "before encoding, a pixel belongs to one object only"
        ),
    )

    multimask_min_points: int
    multimask_max_points: int
    multimask_for_tracking: bool
    binarize_mask_from_points: bool
    non_overlap_masks_for_memory: bool

    # As SAM 3 has them; SAM 2 declares them as branch points.
    presence_threshold: float = 0.0
    memory_presence_threshold: float = 0.0
    mask_prompt_round_trip: bool = False

    def __init__(self, sizes: TrackerSizes, numbered_mlp: bool = False) -> None:
        super().__init__()
        declare(self)
        self.sizes = sizes
        width, memory = sizes.hidden_dim, sizes.memory_dim
        self.maskmem_tpos_enc = nn.Parameter(torch.zeros(sizes.memory_frames, 1, 1, memory))
        self.no_mem_embed = nn.Parameter(torch.zeros(1, 1, width))
        self.no_mem_pos_enc = nn.Parameter(
            torch.zeros(1, 1, width)
        )  # in released files; upstream never reads it either
        self.no_obj_ptr = nn.Parameter(torch.zeros(1, width))
        self.no_obj_embed_spatial = nn.Parameter(torch.zeros(1, memory))
        self.mask_downsample = nn.Conv2d(1, 1, 4, stride=4)
        self.sam_prompt_encoder = PromptEncoder(width, sizes.grid, sizes.image_size)
        self.sam_mask_decoder = MaskDecoder(width, sizes.ffn_dim, numbered_mlp=numbered_mlp)
        self.obj_ptr_proj = MLP(width, width, width, 3)
        self.obj_ptr_tpos_proj = nn.Linear(width, memory)

    # What a subclass owns

    @abstractmethod
    def attend_memory(
        self, features: Tensor, memory: Tensor, memory_position: Tensor, pointer: Tensor, pointer_position: Tensor
    ) -> Tensor:
        """The memory attention: see `MemoryAttention`."""

    @abstractmethod
    def memory_map(self, features: Tensor, mask_values: Tensor) -> Tensor:
        """The memory encoder: see `MemoryEncoder`."""

    # Memory as attention sees it

    def memory_position(self, age: Tensor) -> Tensor:
        """age i64 […]: row of the temporal table (0 the previous frame, 1 the one before, …; the last row:
        conditioning frames) → position of a memory map's cells, f32 […, h·w, C]."""
        grid = self.sizes.grid
        spatial = sine_map(self.sizes.memory_dim, grid, grid).flatten(1).T
        temporal: Tensor = self.maskmem_tpos_enc[:, 0, 0][age][..., None, :]
        return temporal + spatial

    @staticmethod
    def pointer_window(num_frames: Tensor, most: int) -> Tensor:
        """num_frames i32 [] (0: unknown), at most `most` pointers → i32 []: how many frames back pointers are
        attended."""
        return torch.where(num_frames > 0, num_frames.clamp(max=most), most) - 1

    def pointer_tokens(self, pointer: Tensor) -> Tensor:
        """f32 [O, P, D] → f32 [O, (D / C)·P, C]: each pointer is cut into consecutive tokens."""
        tokens: Tensor = pointer.unflatten(2, (-1, self.sizes.memory_dim)).flatten(1, 2)
        return tokens

    def pointer_position(self, distance: Tensor, window: Tensor) -> Tensor:
        """distance i32 [O, P] in frames, window i32 [] → f32 [O, (D / C)·P, C]; the distance is divided by
        max(window, 1)."""
        relative = distance.to(torch.float32) / window.clamp(min=1).to(torch.float32)
        position: Tensor = self.obj_ptr_tpos_proj(sine_1d(relative, self.sizes.hidden_dim))
        parts = self.sizes.hidden_dim // self.sizes.memory_dim
        return position[:, :, None].expand(-1, -1, parts, -1).flatten(1, 2)

    def without_memory(self, features: Tensor) -> Tensor:
        """f32 [1, D, h, w] → the same shape: features of a frame that attends no memory."""
        embedding: Tensor = self.no_mem_embed[0, 0, :, None, None]
        return features + embedding

    # Masks

    def mask_values_as_prompt(self, mask_prompt: Tensor) -> Tensor:
        """Binary mask f32 [O, 1, S, S] → the mask prompt given to the decoder for its pointer, f32 [O, 1, 4h, 4w]."""
        return antialiased_resize(self.mask_downsample(mask_prompt), 4 * self.sizes.grid)

    def uses_candidates(self, number_of_points: Tensor, attends_memory: Tensor) -> Tensor:
        """number_of_points i32 [O], attends_memory bool [O] → bool [O]: whether three candidates are made."""
        candidates = (number_of_points >= self.multimask_min_points) & (number_of_points <= self.multimask_max_points)
        return candidates if self.multimask_for_tracking else candidates & ~attends_memory

    def candidate_masks(self, decoded: DecodedMasks) -> Tensor:
        """The three candidates' logits, f32 [O, 3, 4h, 4w]; -1024 everywhere where the object is absent."""
        present = decoded.object_score > self.presence_threshold
        return torch.where(present[..., None, None], decoded.logits[:, 1:], ABSENT_LOGIT)

    def output(self, decoded: DecodedMasks, candidates: Tensor, preferred: Tensor | None = None) -> FrameOutput:
        """The decoder's masks → a frame's output; an absent object (score at most `presence_threshold`) gets -1024
        everywhere and the pointer `no_obj_ptr`. `candidates` and `preferred`: as in `MaskDecoder.choose`."""
        choice = self.sam_mask_decoder.choose(decoded, candidates, preferred)
        present = decoded.object_score > self.presence_threshold
        low_res = torch.where(present[..., None, None], choice.logits, ABSENT_LOGIT)
        size = self.sizes.image_size
        # Chosen again after the resize, whose rounded weights would turn -1024 into -1023.9999.
        masks = torch.where(present[..., None, None], antialiased_resize(choice.logits, size), ABSENT_LOGIT)
        pointer = torch.where(present, self.obj_ptr_proj(choice.token), self.no_obj_ptr)
        return FrameOutput(low_res, masks, decoded.ious[:, 1:], choice.iou, choice.index, decoded.object_score, pointer)

    def output_of_mask_prompt(self, mask_prompt: Tensor, decoded: FrameOutput) -> FrameOutput:
        """A mask given as prompt is itself the output (logits -10 and 10, IoU 1); only the pointer is `decoded`'s.

        An empty mask means an absent object: score -10, pointer `no_obj_ptr`. `mask_choice` is -1; `ious` stay the
        decoder's. With `mask_prompt_round_trip`, `masks` are the low-resolution logits enlarged again.
        """
        masks = mask_prompt * MASK_SCALE + MASK_BIAS
        low_res = antialiased_resize(masks, 4 * self.sizes.grid)
        if self.mask_prompt_round_trip:
            masks = antialiased_resize(low_res, self.sizes.image_size)
        present = (mask_prompt > 0).flatten(1).any(1, keepdim=True)
        score = torch.where(present, MASK_SCALE + MASK_BIAS, MASK_BIAS)
        pointer = torch.where(present, decoded.pointer, self.no_obj_ptr)
        single = torch.full_like(decoded.mask_choice, -1)
        return FrameOutput(low_res, masks, decoded.ious, torch.ones_like(decoded.iou), single, score, pointer)

    # Memory of this frame

    def counts_as_from_points(self, number_of_points: Tensor, mask_prompt_valid: Tensor) -> Tensor:
        """number_of_points i32 [O], mask_prompt_valid bool [O] → bool [O]: `from_points` of `encode_memory`."""
        from_points = number_of_points > 0
        return from_points | mask_prompt_valid if self.mask_prompt_round_trip else from_points

    def encode_memory(self, features: Tensor, masks: Tensor, object_score: Tensor, from_points: Tensor) -> Tensor:
        """features f32 [1, D, h, w], masks f32 [O, 1, S, S] (logits), object_score f32 [O, 1], from_points bool [O] →
        f32 [O, C, h, w]. A score of at most `memory_presence_threshold` marks the memory as that of an absent object.
        """
        if self.non_overlap_masks_for_memory:
            owner = masks.argmax(0, keepdim=True)  # the first object, on ties
            own = owner == torch.arange(masks.shape[0])[:, None, None, None]
            masks = torch.where(own, masks, masks.clamp(max=MASK_BIAS))
        values = masks.sigmoid()
        if self.binarize_mask_from_points:
            values = torch.where(from_points[:, None, None, None], (masks > 0).to(torch.float32), values)
        memory = self.memory_map(features, values * MASK_SCALE + MASK_BIAS)
        absent = torch.where(object_score > self.memory_presence_threshold, 0.0, self.no_obj_embed_spatial)
        return memory + absent[:, :, None, None]


class TrackedModel(Protocol):
    """A model whose image encoder feeds a tracker."""

    image_mean: ClassVar[RGB]
    image_std: ClassVar[RGB]
    """Of red, green and blue in 0…1: the image encoder takes (value - mean) / deviation."""

    @property
    def tracker(self) -> Tracker:
        """The tracker; it may be the model itself."""

    def tracker_levels(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Image f32 [1, 3, S, S], normalised → f32 [1, D, 4h, 4w], [1, D, 2h, 2w], [1, D, h, w]."""
