"""What a manifest is made of: one frozen dataclass a concept, each a field of `samonnx.runtime.manifest.Manifest`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from samonnx.errors import SamonnxError

__all__ = [
    "BankPair",
    "DTYPES",
    "DetectionInfo",
    "FITS",
    "ManifestError",
    "MemoryInfo",
    "PinInfo",
    "PortInfo",
    "PreprocessingInfo",
    "ProgramInfo",
    "RESIZES",
    "TargetInfo",
    "TextInfo",
    "VerificationInfo",
    "WeightsInfo",
    "XMemInfo",
]

DTYPES = ("float32", "int32", "int64", "bool")
RESIZES = ("bicubic", "bilinear-antialias", "bicubic-antialias", "bilinear")
FITS = ("stretch", "pad")


class ManifestError(SamonnxError):
    """The artifact folder has no manifest, or one that cannot be used."""


@dataclass(frozen=True)
class WeightsInfo:
    """The one weights file that all programs share."""

    source: str
    """`seeded(seed=3)`, `own(seed=0)` (a foreign model's constructor drew them) or `checkpoint`."""
    digest: str
    """sha256 (hex) of the weights that went in."""
    file: str
    bytes: int
    """Size of `file`; a shorter file on disk is a truncated copy."""


@dataclass(frozen=True)
class PortInfo:
    """One input or output of a program."""

    name: str
    dtype: str
    """One of DTYPES."""
    shape: tuple[int | str, ...]
    """A name is a symbolic dimension: any size from 1 on, the same wherever it stands in the program's ports."""
    meaning: str = ""
    range: str = ""

    def __str__(self) -> str:
        return f"{self.dtype} [{', '.join(map(str, self.shape))}]"

    def sides(self, symbolic: int = 1) -> tuple[int, ...]:
        """`shape`, with `symbolic` in the place of every symbolic dimension."""
        return tuple(side if isinstance(side, int) else symbolic for side in self.shape)


@dataclass(frozen=True)
class ProgramInfo:
    """One program: an entry point, as one graph file per target."""

    name: str
    files: Mapping[str, str]
    """Target -> file name inside the folder."""
    inputs: tuple[PortInfo, ...]
    outputs: tuple[PortInfo, ...]
    specialises: str | None = None
    """The program that this one was made from by pinning inputs (`track@first` comes from `track`)."""
    pinned: tuple[str, ...] = ()
    """The inputs that were pinned."""
    filled: int | None = None
    """It gives what `specialises` gives while only the first so many slots of the bank hold a memory, for all objects
    of a call: `bank.memory_frame[:, filled:]` is -1."""


@dataclass(frozen=True)
class TargetInfo:
    """What the graphs of a target are made for."""

    engine: str
    """`onnxruntime` or `openvino`; `any`: standard operators in a form that no engine is bad at."""
    precisions: tuple[str, ...] = ("f32",)
    """What the engine may be told to compute in, where the CPU can (OpenVINO: INFERENCE_PRECISION_HINT). The first is
    the one that `verification` speaks of; others are hints, whose outputs were not compared."""


@dataclass(frozen=True)
class BankPair:
    """One tensor of the bank: the input, the output that goes back into it, and what an empty slot holds."""

    input: str
    output: str
    dtype: str
    shape: tuple[int, ...]
    """The first axis is the object (in calls of a foreign model it is what that model makes it)."""
    empty: float | int | bool


@dataclass(frozen=True)
class PreprocessingInfo:
    """How a uint8 RGB frame becomes the `image` input: resize to size x size, /255, (x - mean) / std."""

    size: int
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    video_resize: str = "bicubic"
    """For frames of a video file; see samonnx.runtime.preprocessing for the methods."""
    image_resize: str = "bilinear-antialias"
    """For a folder of images."""
    binary_mask_prompts: bool = False
    """Whether a mask prompt is cut at 0.5 after it has been resized (SAM 2), or keeps its soft edges (SAM 3)."""
    fit: str = "stretch"
    """How the frame fills the input: `stretch`, each axis by its own factor; `pad` (SAM), the long side becomes `size`,
    the other int(side * scale + 0.5), and what is left to the right and below is 0 after the normalisation."""
    height: int | None = None
    """With `width`: the input is height x width instead of size x size, and `size` is the longer of both (XMem). With
    `fit` pad the input is size x size, and height x width is what the frame is stretched to, whatever its proportions
    (SAM in front of XMem)."""
    width: int | None = None

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width of the input."""
        if self.fit == "pad":
            return self.size, self.size
        return self.height or self.size, self.width or self.size


@dataclass(frozen=True)
class MemoryInfo:
    conditioning_slots: int
    recent_slots: int
    pointer_slots: int
    policy: str
    objects: int
    """Rows of the graph: objects that one call tracks."""
    points: int
    """Prompt places of a row: points, box corners included."""
    corrections_attend_memory: bool = False
    """Whether a click on a frame that was tracked already is run with memory (SAM 2) or without (SAM 3)."""


@dataclass(frozen=True)
class XMemInfo:
    """XMem's memory, see samonnx.models.xmem_bank for the bank."""

    working_frames: int
    """Slots of the working memory; when all are filled, `consolidate` is due before the next frame."""
    min_working_frames: int
    long_term: int
    prototypes: int
    every: int
    """Frames from one memory frame to the next."""
    top_k: int
    objects: int
    """Rows of the graph: objects that are tracked at once."""
    height: int
    """Of the network's frame, before it is padded."""
    width: int
    points: int = 0
    """Prompt places of a row of `start`, box corners included; 0: no `start`."""


@dataclass(frozen=True)
class TextInfo:
    """How words become the `token_ids` input."""

    context_length: int
    """Tokens that go in, start and end among them; longer texts are cut."""
    vocabulary: str = "clip"
    """CLIP's byte-pair vocabulary: 49406 starts a text, 49407 ends it, 0 fills up."""


@dataclass(frozen=True)
class DetectionInfo:
    """The detector behind `segment`, `ground` and `step`."""

    queries: int
    """Detections that come out of a call, most of them with a low score."""
    boxes: int
    """Places for boxes given as prompts."""
    points: int
    """Places for points given as prompts."""
    scoring: str
    """`image`: logits are class logits; `video`: logits are of the joint probability of class and presence. `scores`
    is the joint probability either way."""
    score_threshold: float = 0.5
    """What the original shows: detections with a score above this."""
    masks: int = 0
    """Places for masks given as prompts; 0: the model has no encoder for them."""


@dataclass(frozen=True)
class PinInfo:
    path: str
    value: bool | int | float | str
    meaning: str = ""


@dataclass(frozen=True)
class VerificationInfo:
    """What was held to which tolerance. The errors that were measured depend on the machine, so they stand in
    verification.json and not here."""

    program: str
    target: str
    what: str
    tolerance: float
    engine: str = "onnxruntime"
    """What ran the graph for this figure."""
