"""One interface over the trackers, and the one that an artifact needs.

SAM 2, SAM 3, EfficientSAM3, SAMURAI   Tracker       a bank for each object
XMem, SAM in front of XMem             XMemTracker   one memory for all objects
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from samonnx.runtime.bank import Bank
from samonnx.runtime.clip import Frames, PromptsByFrame
from samonnx.runtime.frame_result import Search
from samonnx.runtime.manifest import Manifest
from samonnx.runtime.prompts import Prompts
from samonnx.runtime.tracker import Tracker, TrackerError
from samonnx.runtime.xmem_bank import XMemBank
from samonnx.runtime.xmem_tracker import XMemTracker

__all__ = ["ObjectTracker", "TrackedFrame", "load_bank", "open_tracker"]


class TrackedFrame(Protocol):
    """What every tracker says about a frame (FrameResult and XMemResult say more); the first axis of arrays is the
    object, in the order of `objects`."""

    @property
    def frame_index(self) -> int: ...

    @property
    def objects(self) -> tuple[int, ...]: ...

    @property
    def masks(self) -> npt.NDArray[np.bool_]:
        """[O, H, W], at the size of the video."""
        ...

    @property
    def scores(self) -> npt.NDArray[np.float32]:
        """[O], 0…1: how sure the network is of the object."""
        ...

    @property
    def boxes(self) -> npt.NDArray[np.int32]:
        """[O, 4], x, y, width, height around each mask."""
        ...

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """[O]: whether the object is seen."""
        ...

    @property
    def prompted(self) -> tuple[int, ...]: ...

    @property
    def searches(self) -> tuple[Search, ...]: ...


class ObjectTracker(Protocol):
    """What every tracker does; see Tracker and XMemTracker."""

    manifest: Manifest

    @property
    def next_frame(self) -> int: ...

    @property
    def objects(self) -> tuple[int, ...]: ...

    @property
    def open_programs(self) -> tuple[str, ...]: ...

    def step(self, frame: npt.NDArray[np.uint8], prompts: Mapping[int, Prompts] | None = None) -> TrackedFrame: ...

    def correct(self, prompts: Mapping[int, Prompts]) -> TrackedFrame: ...

    def track(
        self,
        video: str | os.PathLike[str] | Frames,
        prompts: PromptsByFrame | None = None,
        *,
        box: Sequence[float] | None = None,
    ) -> Iterator[TrackedFrame]: ...

    def remove(self, number: int) -> None: ...

    def reset(self) -> None: ...

    def bank(self) -> Bank | XMemBank: ...

    def restore(self, bank: Any) -> None:
        """`bank`: what `bank` of such a tracker gave, or `load_bank`."""
        ...

    def check_prompts(self, prompts: Mapping[int, Prompts], *, width: int, height: int) -> None: ...


def open_tracker(
    folder: str | os.PathLike[str],
    *,
    target: str | None = None,
    threads: int | None = None,
    providers: Sequence[str] | None = None,
    num_frames: int | None = None,
    kind: str | None = None,
    threshold: float | None = None,
    vocabulary: Path | None = None,
    keep_sessions: bool = False,
) -> ObjectTracker:
    """The tracker that the artifact in `folder` needs; options as in Tracker and XMemTracker.

    XMem does not look at the clip's length (`num_frames`). Raises ManifestError for a folder that is no artifact or
    does not track; TrackerError for `threshold` and `vocabulary`, which are a detector's, where there is none.
    """
    options: dict[str, Any] = {"target": target, "threads": threads, "providers": providers, "kind": kind}
    manifest = Manifest.load(folder)
    if manifest.xmem is None:
        return Tracker(
            folder,
            **options,
            num_frames=num_frames,
            threshold=threshold,
            vocabulary=vocabulary,
            keep_sessions=keep_sessions,
        )
    for name, value in (("threshold", threshold), ("vocabulary", vocabulary)):
        if value is not None:
            raise TrackerError(
                f"{name} belongs to a detector, and the artifact of recipe {manifest.recipe!r} (XMem) has none; "
                "leave it out"
            )
    return XMemTracker(folder, **options, keep_sessions=keep_sessions)


def load_bank(path: str | os.PathLike[str], manifest: Manifest) -> Bank | XMemBank:
    """A saved bank of the kind that the artifact of `manifest` has. Raises BankError."""
    return Bank.load(path, manifest) if manifest.xmem is None else XMemBank.load(path, manifest)
