"""From words and exemplars to objects: the instances that the detector finds on a frame, each as a mask prompt.

The original's video pipeline does this on every frame; here it is done on the frames that the user names. As there, a
detection that overlaps an object which is tracked already is that object, not a new one.

A detection becomes an object above the score that `samonnx segment` shows it by (0.5 in the released model), so that
what is shown is what is tracked. The original asks 0.7 of new objects: there they turn up in the middle of a clip,
and nobody has looked.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from samonnx.runtime.detections import Detections, check_limits
from samonnx.runtime.detector_places import detector_places
from samonnx.runtime.frame_result import Search
from samonnx.runtime.manifest import Manifest, ManifestError
from samonnx.runtime.prompt_rows import check_prompts, takes_masks
from samonnx.runtime.prompts import MaskPrompt, PromptError, Prompts

if TYPE_CHECKING:
    from samonnx.runtime.segmenter import Segmenter

__all__ = ["DOUBLES_IOU", "SAME_OBJECT_IOU", "InstanceFinder", "new_objects"]

DOUBLES_IOU = 0.1
"""Mask IoU above which the lesser of two detections is a double of the other, as in the original's video model."""

SAME_OBJECT_IOU = 0.5
"""Mask IoU from which a detection is an object that is there already.

The released model has 0.1 here, where all objects of a clip answer to the same words; objects of different words may
overlap by more (a rider and a horse), and the original's own default for that is 0.5.
"""

Mask = npt.NDArray[np.bool_]


@dataclass
class InstanceFinder:
    """Runs the detector of an artifact folder; it is opened when first needed."""

    folder: Path
    manifest: Manifest
    target: str | None
    threads: int | None
    providers: Sequence[str] | None
    kind: str
    threshold: float | None
    """Score above which a detection counts; None: what the manifest says."""
    vocabulary: Path | None
    """As in Tokenizer."""
    _segmenter: Segmenter | None = None

    def __post_init__(self) -> None:
        check_limits(self.threshold, None)

    def take_frames_of(self, kind: str) -> None:
        """From now on frames come from "video" or "images"."""
        self.kind = kind
        if self._segmenter is not None:
            self._segmenter.kind = kind

    def check(self, number: int, prompts: Prompts, *, width: int, height: int) -> None:
        """All that is known to be wrong without running: raises PromptError and ManifestError.

        It opens the detector; what that lacks (a graph, the vocabulary) is better said before a clip is run than at the
        first frame with words. Raises what Segmenter raises.
        """
        check_prompts(number, prompts, width=width, height=height)
        try:
            detection = self.manifest.detecting()
            detector_places(prompts, detection, width=width, height=height, mask_side=1)  # a concept has no mask
        except PromptError as error:
            raise PromptError(f"object {number}: {error}") from error
        except ManifestError as error:
            raise ManifestError(f"object {number}: words and exemplars need the detector, but {error}") from error
        if not takes_masks(self.manifest):
            raise PromptError(
                f"object {number}: instances that words or exemplars find are handed on as mask prompts, and recipe "
                f"{self.manifest.recipe!r} was compiled without them; compile with "
                f"--set programs.track.mask_prompt=true, or give points or a box"
            )
        self._open()

    def find_all(self, frame: npt.NDArray[np.uint8], prompts: Mapping[int, Prompts]) -> dict[int, Detections]:
        """What those of the prompts that name a concept find on a frame uint8 [H, W, 3], by their number.

        Raises what `check` and the segmenter raise.
        """
        found = {}
        for number, prompt in prompts.items():
            if prompt.names_a_concept:
                self.check(number, prompt, width=frame.shape[1], height=frame.shape[0])
                try:
                    found[number] = self._open().segment(frame, prompt, threshold=self.threshold, nms=DOUBLES_IOU)
                except PromptError as error:
                    raise PromptError(f"object {number}: {error}") from error
        return found

    def _open(self) -> Segmenter:
        if self._segmenter is None:
            from samonnx.runtime.segmenter import Segmenter  # only clips with words need its vocabulary

            self._segmenter = Segmenter(
                self.folder,
                target=self.target,
                threads=self.threads,
                providers=self.providers,
                kind=self.kind,
                vocabulary=self.vocabulary,
            )
        return self._segmenter


def new_objects(
    found: Mapping[int, Detections], known: Sequence[Mask], used: Collection[int]
) -> tuple[dict[int, MaskPrompt], tuple[Search, ...]]:
    """Masks by number of the objects to be added, and what became of each search in `found`.

    `known` are the masks bool [H, W] of objects that are there, `used` their numbers. A number that another search was
    given under stays free for it. Detections without a pixel are passed over.
    """
    masks: dict[int, MaskPrompt] = {}
    searches = []
    for start, detections in found.items():
        there = [*known, *(prompt.mask for prompt in masks.values())]
        real = [position for position, mask in enumerate(detections.masks) if mask.any()]
        new = [p for p in real if all(_iou(detections.masks[p], other) < SAME_OBJECT_IOU for other in there)]
        kept_free = (*used, *masks, *(number for number in found if number != start))
        numbers = tuple(islice((number for number in count(start) if number not in kept_free), len(new)))
        masks |= {n: MaskPrompt(detections.masks[p]) for n, p in zip(numbers, new, strict=True)}
        scores = tuple(float(detections.scores[position]) for position in new)
        known_ones, empty = len(real) - len(new), len(detections) - len(real)
        searches.append(Search(start, numbers, scores, known_ones, empty, detections.best_score))
    return masks, tuple(searches)


def _iou(one: Mask, other: Mask) -> float:
    union = int((one | other).sum())
    return int((one & other).sum()) / union if union else 0.0
