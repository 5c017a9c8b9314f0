"""A golden file: what an artifact's outputs were, small enough for a repository, and how to compare with it.

One .npz without pickles: `header` is JSON (who, how, and per output a digest and figures), beside it the strided
samples of every output under `PROGRAM/STEP/OUTPUT`. The same record gives the same bytes.
"""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from samonnx.errors import SamonnxError
from samonnx.runtime import typed_json
from samonnx.runtime.manifest import Manifest

__all__ = [
    "FORMAT",
    "GoldenError",
    "GoldenRecord",
    "Movement",
    "OutputRecord",
    "Samples",
    "movements",
    "require_same_origin",
]

FORMAT = 1
HEADER = "header"
TOLERANCE = 1e-4
"""Of an output's largest magnitude: float32 rounding moves outputs by 1e-6 to 1e-5, a real mistake by 1e-3 and more."""

OUTLIERS = 0.001
"""Share of samples that may move further: a pixel at a threshold flips, and memory features around it jump."""

Samples = npt.NDArray[np.generic]


class GoldenError(SamonnxError):
    """The golden file cannot be read, written, or compared with this artifact."""


@dataclass(frozen=True)
class OutputRecord:
    """One output of one program at one step."""

    program: str
    step: int
    output: str
    dtype: str
    shape: tuple[int, ...]
    sha256: str
    """Of the bytes, row-major, little endian."""
    magnitude: float
    """The largest absolute value among the finite ones."""
    mean: float
    """Of the finite values."""
    not_finite: int
    """How many values are NaN or infinite."""
    stride: int
    """Every `stride`-th value, row-major, is among the samples."""
    tolerance: float = 0.0
    """How far it may move, as a share of `magnitude`. 0 for integers and booleans: discrete choices are exact."""

    @property
    def key(self) -> str:
        return f"{self.program}/{self.step}/{self.output}"

    @property
    def is_discrete(self) -> bool:
        return not np.issubdtype(np.dtype(self.dtype), np.floating)


@dataclass(frozen=True)
class _Header:
    format: int
    recipe: str
    recipe_digest: str
    weights_source: str
    weights_digest: str
    target: str
    tools: Mapping[str, str]
    steps: int
    seed: int
    outputs: tuple[OutputRecord, ...]


@dataclass(frozen=True, eq=False)
class GoldenRecord(_Header):
    """The outputs of an artifact. `samples` runs parallel to `outputs`."""

    samples: tuple[Samples, ...]

    def with_tolerance(self, tolerance: float = TOLERANCE) -> GoldenRecord:
        """The same record, every floating-point output with this tolerance."""
        outputs = (replace(output, tolerance=0.0 if output.is_discrete else tolerance) for output in self.outputs)
        return replace(self, outputs=tuple(outputs))

    @property
    def programs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(output.program for output in self.outputs))

    def save(self, path: Path) -> None:
        """Write the file, through a temporary one beside it: an interrupted run leaves the old file."""
        header = _Header(**{name: getattr(self, name) for name in _Header.__dataclass_fields__})
        arrays = {output.key: samples for output, samples in zip(self.outputs, self.samples, strict=True)}
        content = io.BytesIO()
        np.savez_compressed(
            content, allow_pickle=False, **{HEADER: np.frombuffer(typed_json.dump(header).encode(), np.uint8)}, **arrays
        )
        partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(content.getvalue())
            partial.replace(path)
        except OSError as error:
            raise GoldenError(f"golden file {path} cannot be written: {error}") from error
        finally:
            with suppress(OSError):
                partial.unlink()

    @classmethod
    def load(cls, path: Path) -> GoldenRecord:
        """Read a file. Raises GoldenError: no such file, damaged, of another format."""
        if not path.is_file():
            raise GoldenError(
                f"there is no golden file {path}; `samonnx golden record` makes one, --file names another"
            )
        try:
            with np.load(path, allow_pickle=False) as archive:
                value = json.loads(archive[HEADER].tobytes())
                if not isinstance(value, dict) or value.get("format") != FORMAT:
                    raise GoldenError(
                        f"golden file {path}: expected format {FORMAT}; record it again with this version"
                    )
                header = typed_json.parse(_Header, value)
                samples = tuple(archive[output.key] for output in header.outputs)
        except GoldenError:
            raise
        except Exception as error:
            # Damaged zip files fail in a dozen ways (BadZipFile, zlib.error, NotImplementedError, RuntimeError, …).
            raise GoldenError(
                f"golden file {path} is damaged or not a golden file: {error}. Restore it, or record it again"
            ) from error
        return cls(**{name: getattr(header, name) for name in _Header.__dataclass_fields__}, samples=samples)


@dataclass(frozen=True)
class Movement:
    """How far one output is from its record."""

    record: OutputRecord
    moved: float
    """As a share of the recorded magnitude; infinite where no number can say it."""
    is_identical: bool
    """Bit for bit."""
    remark: str = ""

    @property
    def exceeds(self) -> bool:
        """More than the tolerance allows; a discrete output may not move at all."""
        return not self.is_identical and (self.record.is_discrete or not self.moved <= self.record.tolerance)


def require_same_origin(recorded: GoldenRecord, manifest: Manifest) -> None:
    """Raise GoldenError unless the record is of the artifact's recipe and weights: other numbers mean nothing."""
    for what, old, new in (
        ("recipe", f"{recorded.recipe} ({recorded.recipe_digest})", f"{manifest.recipe} ({manifest.recipe_digest})"),
        (
            "weights",
            f"{recorded.weights_source} ({recorded.weights_digest})",
            f"{manifest.weights.source} ({manifest.weights.digest})",
        ),
    ):
        if old != new:
            raise GoldenError(
                f"the golden file was recorded with another {what}: {old}, the artifact has {new}. "
                f"Compare with the artifact it belongs to, or record again if the change is meant"
            )


def movements(recorded: GoldenRecord, found: GoldenRecord) -> tuple[Movement, ...]:
    """Compare output by output, in recorded order. Both are of the same recipe, weights, seed and steps."""
    known = {output.key: (output, samples) for output, samples in zip(found.outputs, found.samples, strict=True)}
    return tuple(
        _movement(output, samples, *known[output.key])
        if output.key in known
        else Movement(output, math.inf, False, "the artifact has no such output")
        for output, samples in zip(recorded.outputs, recorded.samples, strict=True)
    )


def _movement(record: OutputRecord, samples: Samples, found: OutputRecord, found_samples: Samples) -> Movement:
    if (record.dtype, record.shape) != (found.dtype, found.shape):
        remark = f"is {found.dtype} {list(found.shape)}, was {record.dtype} {list(record.shape)}"
        return Movement(record, math.inf, False, remark)
    if record.sha256 == found.sha256:
        return Movement(record, 0.0, True)
    if record.not_finite != found.not_finite:
        remark = f"{found.not_finite} values are not finite, {record.not_finite} were"
        return Movement(record, math.inf, False, remark)
    old, new = samples.astype(np.float64), found_samples.astype(np.float64)
    is_same = (old == new) | (np.isnan(old) & np.isnan(new))
    with np.errstate(invalid="ignore"):
        apart = np.where(is_same, 0.0, np.abs(new - old))
    apart = np.sort(np.nan_to_num(apart, nan=np.inf))
    outliers = 0 if record.is_discrete else int(OUTLIERS * apart.size)
    largest = float(apart[apart.size - 1 - outliers]) if apart.size else 0.0
    moved = max(largest, abs(found.mean - record.mean)) / (record.magnitude or 1.0)
    remark = ""
    if outliers and apart[-1] > largest:
        remark = (
            f"{outliers} of {apart.size} samples left out, the furthest at {apart[-1] / (record.magnitude or 1):.1e}"
        )
    return Movement(record, moved, False, remark)
