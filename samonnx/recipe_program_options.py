"""What a recipe says about its programs: their options, by program, and the detector's places for prompts."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field, with_config
from typing_extensions import TypedDict

from samonnx.recipe_by_keys import OrByKeys
from samonnx.recipe_spec import Spec

__all__ = [
    "DetectionSpec",
    "PlainProgram",
    "PredictSpec",
    "Programs",
    "StartSpec",
    "TrackSpec",
    "XMemTrackSpec",
]


def _rising(numbers: tuple[int, ...]) -> tuple[int, ...]:
    if any(later <= earlier for earlier, later in pairwise(numbers)):
        raise ValueError("expected rising numbers, each once, such as [2, 4]")
    return numbers


class TrackSpec(Spec):
    """The `track` program: one tracking step."""

    points: Annotated[int, Field(ge=1)] = 4
    """Places for points an object; a box takes two."""

    mask_prompt: bool = True
    """Whether a mask can be given as prompt."""

    objects: Annotated[int, Field(ge=1)] = 1
    """Objects that are tracked at once."""

    filled: Annotated[tuple[Annotated[int, Field(ge=1)], ...], AfterValidator(_rising)] | None = None
    """Numbers of slots k for which a graph `track@k` is made that attends to the first k slots only, for early frames;
    rising, below conditioning_slots + recent_slots. []: none; null: half of the slots, rounded down (3 of 7)."""

    def filled_of(self, slots: int) -> tuple[int, ...]:
        """`filled` for a bank of so many slots, null resolved.

        With a bank of 7, the six frames after the first attend to 42 slots by `track` alone, to 30 with one more graph,
        for 3 or for 4 slots, to 26 with two, for 2 and 4, to 21 at best. Each graph costs time to compile and to load.
        """
        if self.filled is not None:
            return self.filled
        return (slots // 2,) if slots > 1 else ()


class XMemTrackSpec(Spec):
    """The `track` program of XMem: one step over frames of one size."""

    objects: Annotated[int, Field(ge=1)] = 1
    """Objects that are tracked at once."""

    height: Annotated[int, Field(ge=1)]
    """Rows of a frame; any number, it is padded to 16 in the graph."""

    width: Annotated[int, Field(ge=1)]
    """Columns of a frame."""

    @property
    def cells(self) -> int:
        """Elements that a memory frame adds, one for each 16 x 16 pixels of the padded frame."""
        return -(-self.height // 16) * -(-self.width // 16)


class PredictSpec(Spec):
    """The `predict` program: features of one image and prompts to masks, without memory."""

    points: Annotated[int, Field(ge=1)] = 4
    """Places for points an object; a box takes two."""

    objects: Annotated[int, Field(ge=1)] | None = 1
    """Objects that are prompted at once; null: any number, a symbolic dimension (SAM)."""


class StartSpec(Spec):
    """The `start` program of SAM in front of XMem: clicks or a box, and one step of `track` with the mask found."""

    points: Annotated[int, Field(ge=1)] = 4
    """Places for points an object; a box takes two."""


class DetectionSpec(Spec):
    """Places for what is given to the detector beside words, in all programs that detect."""

    boxes: Annotated[int, Field(ge=1)] = 4
    """Places for boxes."""

    points: Annotated[int, Field(ge=1)] = 4
    """Places for points."""

    masks: Annotated[int, Field(ge=0)] = 0
    """Places for masks; only for a model with an encoder for them (model.args.mask_prompts)."""


class PlainProgram(Spec):
    """A program without options of its own: `{}`."""


@with_config(ConfigDict(extra="forbid"))
class Programs(TypedDict, total=False):
    """The programs to make, by name; a dict with the keys that the recipe has."""

    encode_text: PlainProgram
    encode_image: PlainProgram
    ground: PlainProgram
    segment: PlainProgram
    track: Annotated[TrackSpec, OrByKeys(XMemTrackSpec)]
    start: StartSpec
    consolidate: PlainProgram
    track_and_consolidate: PlainProgram
    step: PlainProgram
    predict: PredictSpec
    segment_prompt: PlainProgram
