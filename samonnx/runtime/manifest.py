"""The manifest of an artifact folder: what its graphs take and give, and how they were made.

Written by the compiler, read by the runtime; one frozen dataclass a concept, `manifest.json` on disk. It holds no
time stamps and no absolute paths, so that two compiles of the same recipe give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from samonnx.runtime import typed_json
from samonnx.runtime.manifest_checks import FORMAT, check_manifest
from samonnx.runtime.manifest_parts import (
    DTYPES,
    BankPair,
    DetectionInfo,
    ManifestError,
    MemoryInfo,
    PinInfo,
    PortInfo,
    PreprocessingInfo,
    ProgramInfo,
    TargetInfo,
    TextInfo,
    VerificationInfo,
    WeightsInfo,
    XMemInfo,
)

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

MANIFEST_NAME = "manifest.json"


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
        check_manifest(self)

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
