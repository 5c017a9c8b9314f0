"""A picture looked at once, then asked for masks by points, boxes and earlier logits.

Drives the programs `encode_image` and `predict`.

Upstream `segment_anything/predictor.py` (SAM) and `sam2/sam2_image_predictor.py` (SAM 2); which of the two an artifact
is, its manifest says: how the picture lies in the frame, which maps go from the one program to the other, how many
prompts a call takes. Pictures are resized as images, not as frames of a video.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from samonnx.errors import SamonnxError
from samonnx.runtime.frame_fit import FrameFit
from samonnx.runtime.manifest import Manifest, ManifestError, PortInfo
from samonnx.runtime.preprocessing import check_frame, network_image
from samonnx.runtime.prompts import EMPTY_PLACE, POSITIVE, PromptError, Prompts, point_places
from samonnx.runtime.session import Array, Session

__all__ = ["EncodedPicture", "ImagePredictor", "PredictedMasks", "PredictorError"]

Floats = npt.NDArray[np.float32]

PROGRAMS = ("encode_image", "predict")
WITHOUT_MASKS = "predict@points"
PROMPT_INPUTS = ("point_coords", "point_labels", "mask_input", "mask_input_valid")


class PredictorError(SamonnxError):
    """Something was asked of the predictor that it, or its artifact, cannot do."""


@dataclass(frozen=True, eq=False)
class EncodedPicture:
    """A picture as the network sees it, to be asked many things; made by `ImagePredictor.encode_image`."""

    fit: FrameFit
    """The picture's size, and how it lies in the network's frame."""
    maps: Mapping[str, Array]
    """The outputs of `encode_image`."""
    digest: str
    """Which recipe and weights they belong to."""


@dataclass(frozen=True, eq=False)
class PredictedMasks:
    """M masks for each of P prompts: three candidates, or the single one."""

    fit: FrameFit
    low_res_logits: Floats
    """[P, M, h, w]; may be given to `predict` again as `earlier`, one mask a prompt."""
    ious: Floats
    """[P, M]: the IoU with the true mask that the network expects; the original's values may leave 0…1."""

    def logits(self) -> Floats:
        """At the picture's size, f32 [P, M, height, width]; resized anew in every call."""
        return self.fit.original_logits(self.low_res_logits)

    def masks(self) -> npt.NDArray[np.bool_]:
        """The logits above 0, bool [P, M, height, width]."""
        masks = np.empty((*self.ious.shape, self.fit.height, self.fit.width), dtype=np.bool_)
        for place in np.ndindex(self.ious.shape):  # one after the other: logits take four times as much
            masks[place] = self.fit.original_logits(self.low_res_logits[place]) > 0
        return masks


class ImagePredictor:
    """Masks for points and boxes on pictures.

    `folder` is an artifact folder with the programs `encode_image` and `predict`; `target`, `threads`, `providers` as
    in Session. Raises ManifestError and SessionError, and PredictorError for programs with inputs it does not know.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        target: str | None = None,
        threads: int | None = None,
        providers: Sequence[str] | None = None,
    ) -> None:
        self.manifest = Manifest.load(folder)
        self._preprocessing = self.manifest.seeing()
        lacking = [name for name in PROGRAMS if not self.manifest.has_program(name)]
        if lacking:
            there = ", ".join(program.name for program in self.manifest.programs) or "none"
            raise ManifestError(
                f"the artifact of recipe {self.manifest.recipe!r} has no program {' and no program '.join(lacking)}; "
                f"it has: {there}. Masks of an image need both: compile a recipe with `encode_image` and `predict` "
                f"under `programs:`"
            )
        self._check_ports()
        self._folder = Path(folder)
        self._options = {"target": target, "threads": threads, "providers": providers, "manifest": self.manifest}
        self._sessions: dict[str, Session] = {}

    @property
    def places(self) -> int:
        """Places of a prompt: its points, and two for a box."""
        return self._ports("predict")["point_labels"].sides()[1]

    @property
    def rows(self) -> int | None:
        """Prompts that a call of the graph takes; None: any number."""
        rows = self._ports("predict")["point_labels"].shape[0]
        return rows if isinstance(rows, int) else None

    def encode_image(self, picture: npt.NDArray[np.uint8]) -> EncodedPicture:
        """Look at a picture uint8 [H, W, 3] RGB. Raises FrameError, FitError, SessionError."""
        check_frame(picture)
        fit = FrameFit.of(self._preprocessing, *picture.shape[:2])
        image = network_image(picture, self._preprocessing, kind="images")
        # the encoder of vit_b leaves 1.6 GiB of working memory behind, which the decoder has no use for
        maps = self._session("encode_image").run({"image": image}, release=True)
        return EncodedPicture(fit, maps, self.manifest.bank_digest)

    def predict(
        self,
        picture: EncodedPicture,
        prompts: Sequence[Prompts],
        *,
        multimask: bool = True,
        earlier: Floats | None = None,
    ) -> PredictedMasks:
        """Masks for each of P prompts, each of them points with at most one box, in pixels of the picture.

        `multimask`: three candidates for each, better where a prompt can mean several things; otherwise the single
        mask. `earlier` f32 [P, 1, h, w]: low-resolution logits of the same things from a call before. Raises
        PromptError, with the prompt's number; SessionError; PredictorError if another artifact has encoded the picture.
        """
        self._check_picture(picture)
        if not prompts:
            raise PromptError("no prompts: give points or a box for at least one thing")
        rows = [self._places_of(number, prompt, picture.fit) for number, prompt in enumerate(prompts)]
        coords, labels = (np.stack(arrays) for arrays in zip(*rows, strict=True))
        if earlier is not None:
            side = self._ports("predict")["mask_input"].sides()[-1]
            if earlier.dtype != np.float32 or earlier.shape != (len(prompts), 1, side, side):
                raise PromptError(
                    f"earlier logits are {earlier.dtype} {list(earlier.shape)}; expected float32 "
                    f"{[len(prompts), 1, side, side]}: one of the low-resolution masks for each prompt"
                )
        outputs = self._predict(picture, coords, labels, earlier)
        logits, ious = ("low_res_masks", "ious") if multimask else ("single_mask", "single_iou")
        return PredictedMasks(picture.fit, outputs[logits], outputs[ious])

    def predict_points(self, picture: EncodedPicture, points: npt.NDArray[np.float64]) -> PredictedMasks:
        """Three candidates for each of the points [P, 2], x and y in pixels of the picture, each a prompt of its own.

        P is at least 1. Raises SessionError; PredictorError if another artifact has encoded the picture.
        """
        self._check_picture(picture)
        coords = np.zeros((len(points), self.places, 2), dtype=np.float32)
        labels = np.full((len(points), self.places), EMPTY_PLACE, dtype=np.int32)
        coords[:, 0], labels[:, 0] = picture.fit.to_network(points), POSITIVE
        outputs = self._predict(picture, coords, labels, None)
        return PredictedMasks(picture.fit, outputs["low_res_masks"], outputs["ious"])

    def _places_of(
        self, number: int, prompts: Prompts, fit: FrameFit
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
        where = f"prompt {number}"
        if prompts.names_a_concept:
            raise PromptError(f"{where}: words and exemplars are for `segment`; here a prompt is points and a box")
        if prompts.mask is not None:
            raise PromptError(f"{where}: `predict` takes no masks, but low-resolution logits; give them as `earlier`")
        try:
            return point_places(
                prompts,
                width=fit.width,
                height=fit.height,
                size=self._preprocessing.size,
                places=self.places,
                fit=fit,
                program="predict",
            )
        except PromptError as error:
            raise PromptError(f"{where}: {error}") from error

    def _predict(
        self, picture: EncodedPicture, coords: Floats, labels: npt.NDArray[np.int32], earlier: Floats | None
    ) -> dict[str, Floats]:
        """All outputs, of any number of prompts; a graph with a fixed number of rows is called as often as it takes."""
        cheaper = earlier is None and self.manifest.has_program(WITHOUT_MASKS)
        session = self._session(WITHOUT_MASKS if cheaper else "predict")
        rows = self.rows or len(labels)
        given: dict[str, Array] = {"point_coords": coords, "point_labels": labels}
        if not cheaper and "mask_input" in self._ports("predict"):
            side = self._ports("predict")["mask_input"].sides()[-1]
            none = np.zeros((len(labels), 1, side, side), dtype=np.float32)
            given["mask_input"] = none if earlier is None else earlier
            given["mask_input_valid"] = np.full(len(labels), earlier is not None)
        maps = {port.name: picture.maps[port.name] for port in session.program.inputs if port.name not in given}
        calls = [
            session.run({**maps, **{name: _rows(name, array, start, rows) for name, array in given.items()}})
            for start in range(0, len(labels), rows)
        ]
        return {name: _joined([call[name] for call in calls], len(labels)) for name in calls[0]}

    def _check_picture(self, picture: EncodedPicture) -> None:
        if picture.digest != self.manifest.bank_digest:
            raise PredictorError(
                f"the picture was encoded by another artifact: its recipe or weights are not those of "
                f"{self.manifest.recipe!r}. Encode it again with this one"
            )

    def _check_ports(self) -> None:
        maps = {port.name for port in self.manifest.program("encode_image").outputs}
        ports = self._ports("predict")
        unknown = [name for name in ports if name not in maps and name not in PROMPT_INPUTS]
        lacking = [name for name in ("point_coords", "point_labels") if name not in ports]
        if unknown or lacking:
            wrong = [f"an input {name!r} that `encode_image` does not give" for name in unknown]
            wrong += [f"no input {name!r}" for name in lacking]
            raise PredictorError(
                f"program `predict` of recipe {self.manifest.recipe!r} has {', and '.join(wrong)}: this version of "
                f"samonnx does not know how to call it"
            )

    def _ports(self, program: str) -> dict[str, PortInfo]:
        return {port.name: port for port in self.manifest.program(program).inputs}

    def _session(self, program: str) -> Session:
        """Opened when first needed."""
        if program not in self._sessions:
            self._sessions[program] = Session(self._folder, program, **self._options)  # type: ignore[arg-type]
        return self._sessions[program]


def _rows(name: str, array: Array, start: int, rows: int) -> Array:
    """That many rows of an input from `start` on; those that are lacking are prompts without points."""
    part = array[start : start + rows]
    if len(part) == rows:
        return part
    filling = EMPTY_PLACE if name == "point_labels" else 0
    lacking = np.full((rows - len(part), *part.shape[1:]), filling, dtype=part.dtype)
    return np.concatenate([part, lacking])


def _joined(parts: Sequence[Array], count: int) -> Floats:
    joined: Floats = (parts[0] if len(parts) == 1 else np.concatenate(parts))[:count].astype(np.float32, copy=False)
    return joined
