"""The manifest of an artifact folder: what its graphs take and give, and how they were made.

Written by the compiler, read by the runtime; one frozen dataclass a concept, `manifest.json` on disk. It holds no
time stamps and no absolute paths, so that two compiles of the same recipe give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from samonnx.errors import SamonnxError
from samonnx.runtime import typed_json

__all__ = [
    "DTYPES",
    "FORMAT",
    "MANIFEST_NAME",
    "BankPair",
    "DetectionInfo",
    "Manifest",
    "ManifestError",
    "MemoryInfo",
    "PinInfo",
    "PortInfo",
    "PreprocessingInfo",
    "ProgramInfo",
    "TargetInfo",
    "TextInfo",
    "VerificationInfo",
    "WeightsInfo",
    "XMemInfo",
]

FORMAT = 1
MANIFEST_NAME = "manifest.json"
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


@dataclass(frozen=True)
class Manifest:
    """All that is needed to drive an artifact folder. Raises ManifestError on values that contradict each other."""

    recipe: str
    recipe_digest: str
    weights: WeightsInfo
    programs: tuple[ProgramInfo, ...]
    bank: tuple[BankPair, ...]
    preprocessing: PreprocessingInfo | None
    """None: calls of a foreign model, whose inputs the caller prepares as that model expects."""
    memory: MemoryInfo | None = None
    """None: no program that tracks by a bank of slots for each object (SAM 2, SAM 3)."""
    xmem: XMemInfo | None = None
    """None: no program that tracks by XMem's memory."""
    text: TextInfo | None = None
    """None: no program that takes words."""
    detection: DetectionInfo | None = None
    """None: no program that detects."""
    prompt_preprocessing: PreprocessingInfo | None = None
    """Of the input `prompt_image`, where prompts are looked up in a frame of their own (`start`)."""
    pins: tuple[PinInfo, ...] = ()
    tools: Mapping[str, str] = field(default_factory=dict)
    verification: tuple[VerificationInfo, ...] = ()
    targets: Mapping[str, TargetInfo] = field(default_factory=dict)
    """Of the graphs in `programs`, by target."""
    notes: tuple[str, ...] = ()
    format: int = FORMAT

    def __post_init__(self) -> None:
        _check(self)

    @property
    def bank_digest(self) -> str:
        """What a saved bank is bound to: the recipe and the weights (hex)."""
        return hashlib.sha256(f"{self.recipe_digest}\n{self.weights.digest}\n".encode()).hexdigest()

    def program(self, name: str) -> ProgramInfo:
        """The program called `name`; ManifestError lists the ones there are."""
        for program in self.programs:
            if program.name == name:
                return program
        there = ", ".join(program.name for program in self.programs) or "none"
        raise ManifestError(f"the artifact of recipe {self.recipe!r} has no program {name!r}; it has: {there}")

    def tracking(self) -> MemoryInfo:
        """`memory` of an artifact that tracks; ManifestError if this one does not."""
        if self.memory is None and self.xmem is not None:
            raise ManifestError(
                f"the artifact of recipe {self.recipe!r} tracks by XMem's memory, which this does not drive; "
                "samonnx.runtime.open_tracker and `samonnx track` do"
            )
        if self.memory is None:
            raise ManifestError(self._lacks("tracks", "track"))
        return self.memory

    def following(self) -> XMemInfo:
        """`xmem` of an artifact that tracks by XMem's memory; ManifestError if this one does not."""
        if self.xmem is None:
            raise ManifestError(self._lacks("tracks by XMem's memory", "track"))
        return self.xmem

    def seeing(self) -> PreprocessingInfo:
        """`preprocessing` of an artifact that says how an image is prepared; ManifestError if this one does not."""
        if self.preprocessing is None:
            there = ", ".join(program.name for program in self.programs) or "none"
            raise ManifestError(
                f"the artifact of recipe {self.recipe!r} does not say how an image is prepared: its programs ({there}) "
                "are calls of a foreign model. Prepare their inputs as that model expects, and run them with Session"
            )
        return self.preprocessing

    def detecting(self) -> DetectionInfo:
        """`detection` of an artifact that detects; ManifestError if this one does not."""
        if self.detection is None:
            raise ManifestError(self._lacks("detects", "segment"))
        return self.detection

    def reading(self) -> TextInfo:
        """`text` of an artifact that takes words; ManifestError if this one does not."""
        if self.text is None:
            raise ManifestError(self._lacks("takes words", "segment"))
        return self.text

    def _lacks(self, what: str, program: str) -> str:
        there = ", ".join(program.name for program in self.programs) or "none"
        if self.preprocessing is None:
            return (
                f"the artifact of recipe {self.recipe!r} has no program that {what} in samonnx's own form: its "
                f"programs ({there}) are calls of a foreign model. Run them with Session"
            )
        return (
            f"the artifact of recipe {self.recipe!r} has no program that {what}; it has: {there}. "
            f"Compile a recipe with `{program}` under `programs:`"
        )

    def for_filled(self, name: str, filled: int) -> ProgramInfo:
        """Of the program called `name` and those that specialise it by `filled`: the cheapest that may run while only
        the first `filled` slots hold memories."""
        fitting = [p for p in self.programs if p.specialises == name and p.filled is not None and p.filled >= filled]
        return min(fitting, key=lambda program: program.filled or 0) if fitting else self.program(name)

    def has_program(self, name: str) -> bool:
        return any(program.name == name for program in self.programs)

    def to_json(self) -> str:
        """Deterministic text: sorted keys, two spaces, a newline at the end."""
        return typed_json.dump(self)

    @classmethod
    def from_json(cls, text: str, where: str = MANIFEST_NAME) -> Manifest:
        """Parse strictly. Raises ManifestError that names `where`, the field, what was found and what was expected."""
        try:
            value = json.loads(text)
        except json.JSONDecodeError as error:
            raise ManifestError(
                f"{where} is not JSON: line {error.lineno}, column {error.colno}: {error.msg}. "
                f"Compile the recipe again, or copy the file again"
            ) from error
        if isinstance(value, dict) and value.get("format") != FORMAT:
            found = f"format {json.dumps(value['format'])}" if "format" in value else "no format"
            raise ManifestError(
                f"{where} has {found}; this version of samonnx reads format {FORMAT}. "
                f"Update samonnx, or compile the recipe again with this version"
            )
        try:
            return typed_json.parse(cls, value)
        except (typed_json.TypedJsonError, ManifestError) as error:
            raise ManifestError(f"{where}: {error}") from error

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Manifest:
        """Read `folder`/manifest.json. Raises ManifestError."""
        folder = Path(folder)
        if not folder.is_dir():
            what = "is a file, not a folder" if folder.exists() else "does not exist"
            raise ManifestError(
                f"artifact folder {folder} {what}; expected the output folder of `samonnx compile` (dist/NAME)"
            )
        path = folder / MANIFEST_NAME
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise ManifestError(
                f"{folder} has no {MANIFEST_NAME}, so it is not an artifact folder; "
                f"expected the output folder of `samonnx compile`"
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            raise ManifestError(f"{path} cannot be read: {error}") from error
        return cls.from_json(text, where=str(path))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the text of `to_json` to `path`, a file (the compiler makes the folder atomic)."""
        Path(path).write_text(self.to_json(), encoding="utf-8")


def _check(manifest: Manifest) -> None:
    """Contradictions inside one manifest; types are the parser's business."""
    if manifest.format != FORMAT:
        raise ManifestError(f"format is {manifest.format}, expected {FORMAT}")
    names = [program.name for program in manifest.programs]
    if len(set(names)) != len(names):
        raise ManifestError(f"programs: a name stands twice in {names}")
    for name in (manifest.weights.file, *(file for p in manifest.programs for file in p.files.values())):
        if not name or Path(name).name != name or "\\" in name:
            raise ManifestError(f"file name {name!r}: expected a plain name inside the artifact folder")
    for program in manifest.programs:
        for port in (*program.inputs, *program.outputs):
            _check_tensor(f"program {program.name!r}, port {port.name!r}", port.dtype, port.shape)
    foreign = manifest.preprocessing is None
    if manifest.bank and manifest.memory is None and manifest.xmem is None and not foreign:
        raise ManifestError("a bank is listed, but field 'memory' is missing")
    if manifest.memory is not None and manifest.xmem is not None:
        raise ManifestError("fields 'memory' and 'xmem' are both there; an artifact has one kind of bank")
    for program in manifest.programs:
        if program.filled is not None:
            _check_filled(manifest, program, program.filled)
    for pair in manifest.bank:
        _check_pair(manifest, pair)
    if manifest.preprocessing is not None:
        _check_preprocessing(manifest.preprocessing)
    if manifest.prompt_preprocessing is not None:
        _check_preprocessing(manifest.prompt_preprocessing, "prompt_preprocessing")


def _check_preprocessing(info: PreprocessingInfo, field: str = "preprocessing") -> None:
    for name in ("video_resize", "image_resize"):
        value = getattr(info, name)
        if value not in RESIZES:
            raise ManifestError(f"{field}.{name}: expected one of {', '.join(RESIZES)}, found {value!r}")
    if info.size < 1 or not all(math.isfinite(s) and s > 0 for s in info.std):
        raise ManifestError(f"{field}: size and std must be positive")
    if info.fit not in FITS:
        raise ManifestError(f"{field}.fit: expected one of {', '.join(FITS)}, found {info.fit!r}")
    sides = [side for side in (info.height, info.width) if side is not None]
    if sides and (len(sides) == 1 or min(sides) < 1 or max(sides) != info.size):
        raise ManifestError(
            f"{field}: height and width are {info.height} and {info.width}, expected both, positive, the longer "
            f"one equal to size ({info.size}), or neither"
        )


def _check_tensor(where: str, dtype: str, shape: tuple[int | str, ...]) -> None:
    if dtype not in DTYPES:
        raise ManifestError(f"{where}: expected a dtype of {', '.join(DTYPES)}, found {dtype!r}")
    if any(side == "" if isinstance(side, str) else side < 0 for side in shape):
        raise ManifestError(f"{where}: expected a shape without negative sides, found {list(shape)}")


def _check_filled(manifest: Manifest, program: ProgramInfo, filled: int) -> None:
    """A wrong promise would give wrong masks without a word."""
    where = f"program {program.name!r}: filled is {filled}"
    frames = next((pair for pair in manifest.bank if pair.input == "bank.memory_frame"), None)
    if frames is None or len(frames.shape) != 2:
        raise ManifestError(f"{where}, but there is no bank tensor 'bank.memory_frame' [objects, slots] to tell them")
    if not 1 <= filled < frames.shape[1]:
        raise ManifestError(f"{where}, expected 1 to {frames.shape[1] - 1}: the bank has {frames.shape[1]} slots")
    if program.specialises is None:
        raise ManifestError(f"{where}, but field 'specialises' does not name the program that it stands in for")
    for other in manifest.programs:
        if other.specialises == program.specialises and other.filled == filled and other.name != program.name:
            raise ManifestError(f"{where}, and so it is for {other.name!r}; expected one program for each number")
        if other.name == program.specialises:
            for kind, own, its in (
                ("inputs", program.inputs, other.inputs),
                ("outputs", program.outputs, other.outputs),
            ):
                if {(p.name, p.dtype, p.shape) for p in own} != {(p.name, p.dtype, p.shape) for p in its}:
                    raise ManifestError(
                        f"{where}, so it stands in for {other.name!r}, but their {kind} differ; expected the same"
                    )


def _check_pair(manifest: Manifest, pair: BankPair) -> None:
    _check_tensor(f"bank tensor {pair.input!r}", pair.dtype, pair.shape)
    rows = None if manifest.memory is None else manifest.memory.objects
    if rows is not None and (not pair.shape or pair.shape[0] != rows):
        raise ManifestError(
            f"bank tensor {pair.input!r}: the first axis is the object, so expected {rows} "
            f"(memory.objects), found shape {list(pair.shape)}"
        )
    for program in manifest.programs:
        ports = {port.name: port for port in (*program.inputs, *program.outputs)}
        for name in (pair.input, pair.output):
            port = ports.get(name)
            if port is not None and (port.dtype, port.shape) != (pair.dtype, pair.shape):
                raise ManifestError(
                    f"bank tensor {name!r} is {pair.dtype} {list(pair.shape)}, "
                    f"but program {program.name!r} says {port} for it"
                )
