"""Contradictions inside one manifest: between its programs, its bank, and what it says of its memory."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from samonnx.runtime.manifest_parts import (
    DTYPES,
    FITS,
    RESIZES,
    BankPair,
    ManifestError,
    PreprocessingInfo,
    ProgramInfo,
)

if TYPE_CHECKING:
    from samonnx.runtime.manifest import Manifest

__all__ = ["FORMAT", "check_manifest"]

FORMAT = 1


def check_manifest(manifest: Manifest) -> None:
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
