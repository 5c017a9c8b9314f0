"""An image and a description in, detections out: drives the programs that detect.

An artifact has `segment`, which does all at once, or its parts: `encode_image` once an image, `encode_text` once a
text, `ground` once a question. With the parts, many things can be asked of one image for little.

As in the original (sam3/model/sam3_image_processor.py): without words, boxes and points are looked for under the word
"visual"; images are resized with antialiasing in uint8. It resizes with PyTorch's arithmetic, which is another on CPUs
without AVX2 (up to 1/255 in a fifth of the pixels); here it is Pillow's, up to 2/255 from PyTorch's in 4 % of them.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from samonnx.errors import SamonnxError
from samonnx.runtime.detections import Detections, check_limits, detect
from samonnx.runtime.detector_places import detector_places
from samonnx.runtime.manifest import Manifest, ManifestError
from samonnx.runtime.preprocessing import check_frame, network_image
from samonnx.runtime.prompts import PromptError, Prompts
from samonnx.runtime.session import Array, Session
from samonnx.runtime.tokenizer import Tokenizer
from samonnx.runtime.vocabulary import END

__all__ = ["EncodedImage", "Segmenter", "SegmenterError"]

PARTS = ("encode_image", "encode_text", "ground")
WITHOUT_WORDS = "visual"
TEXTS_KEPT = 64


class SegmenterError(SamonnxError):
    """Something was asked of the segmenter that it, or its artifact, cannot do."""


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """An image as the network sees it, to be asked many things; made by `Segmenter.encode_image`."""

    width: int
    height: int
    """Size of the image in pixels."""
    maps: Mapping[str, Array]
    """The outputs of `encode_image`: f32 `high_res_0`, `high_res_1`, `features`."""
    digest: str
    """Which recipe and weights they belong to."""


class Segmenter:
    """Finds things in images by words, boxes and points.

    `folder` is an artifact folder; `target`, `threads`, `providers` as in Session. `kind` is where frames come from,
    "images" or "video": the original resizes the two differently; the attribute may be changed between frames.
    `vocabulary` as in Tokenizer. Raises ManifestError, SessionError, and what Tokenizer raises.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        target: str | None = None,
        threads: int | None = None,
        providers: Sequence[str] | None = None,
        kind: str = "images",
        vocabulary: Path | None = None,
    ) -> None:
        if kind not in ("video", "images"):
            raise SegmenterError(f"kind is {kind!r}; expected 'images' or 'video'")
        self.manifest = Manifest.load(folder)
        self.detection = self.manifest.detecting()
        text = self.manifest.reading()
        if text.vocabulary != "clip":
            raise ManifestError(
                f"the artifact of recipe {self.manifest.recipe!r} reads words by the vocabulary {text.vocabulary!r}; "
                f"this version of samonnx knows 'clip'. Update samonnx"
            )
        self._folder, self.kind = Path(folder), kind
        self._target, self._threads, self._providers = target, threads, providers
        self._sessions: dict[str, Session] = {}
        self._texts: OrderedDict[bytes, dict[str, Array]] = OrderedDict()
        self._in_parts = all(self.manifest.has_program(part) for part in PARTS)
        self._grounding = self._session("ground" if self._in_parts else "segment")
        self._tokenizer = Tokenizer(text.context_length, vocabulary)

    def segment(
        self,
        frame: npt.NDArray[np.uint8],
        prompts: Prompts,
        *,
        threshold: float | None = None,
        nms: float | None = None,
    ) -> Detections:
        """What `prompts` describe, in a frame uint8 [H, W, 3] RGB.

        `threshold` is the score above which a detection counts, by default the artifact's; `nms` as in `detect`.
        Warns with TruncatedTextWarning when the text is too long. Raises FrameError, PromptError, DetectionError,
        SessionError.
        """
        check_frame(frame)
        height, width = frame.shape[:2]
        asked = self._asked(prompts, width, height, threshold, nms)
        if self._in_parts:
            return self._ground(self.encode_image(frame), asked, threshold, nms)
        outputs = self._grounding.run({"image": self._image(frame), **asked})
        return self._detections(outputs, width, height, threshold, nms)

    def encode_image(self, frame: npt.NDArray[np.uint8]) -> EncodedImage:
        """Look at a frame uint8 [H, W, 3] RGB, to `ground` prompts on it later.

        Raises FrameError, SessionError, and SegmenterError if the artifact has no programs for the parts.
        """
        check_frame(frame)
        if not self._in_parts:
            lacking = [f"`{part}`" for part in PARTS if not self.manifest.has_program(part)]
            raise SegmenterError(
                f"the artifact of recipe {self.manifest.recipe!r} can only do everything at once: it has no "
                f"{' and no '.join(lacking)}. Use segment(), or compile the recipe with {', '.join(PARTS)} under "
                f"`programs:`"
            )
        maps = self._session("encode_image").run({"image": self._image(frame)})
        return EncodedImage(frame.shape[1], frame.shape[0], maps, self.manifest.bank_digest)

    def ground(
        self, image: EncodedImage, prompts: Prompts, *, threshold: float | None = None, nms: float | None = None
    ) -> Detections:
        """As `segment`, on an image that `encode_image` has looked at. SegmenterError if another artifact did."""
        if image.digest != self.manifest.bank_digest:
            raise SegmenterError(
                f"the image was encoded by another artifact: its recipe or weights are not those of "
                f"{self.manifest.recipe!r}. Encode it again with this one"
            )
        asked = self._asked(prompts, image.width, image.height, threshold, nms)
        return self._ground(image, asked, threshold, nms)

    def _ground(
        self, image: EncodedImage, asked: Mapping[str, Array], threshold: float | None, nms: float | None
    ) -> Detections:
        places = {name: array for name, array in asked.items() if name != "token_ids"}
        outputs = self._grounding.run({**image.maps, **self._text_features(asked["token_ids"]), **places})
        return self._detections(outputs, image.width, image.height, threshold, nms)

    def _asked(
        self, prompts: Prompts, width: int, height: int, threshold: float | None, nms: float | None
    ) -> dict[str, Array]:
        """Tokens and places; all that can be wrong with them is said before the network runs."""
        check_limits(threshold, nms)
        places = detector_places(prompts, self.detection, width=width, height=height, mask_side=self._mask_side())
        tokens = self._tokenizer.encode(WITHOUT_WORDS if prompts.text is None else prompts.text)
        if tokens[0, 1] == END:
            raise PromptError(
                f"nothing is left of the text {prompts.text!r} once it is cleaned: name what to look for, "
                f'for example "a dog"'
            )
        return {"token_ids": tokens, **places}

    def _mask_side(self) -> int:
        return next(port.sides()[-1] for port in self._grounding.program.outputs if port.name == "masks")

    def _image(self, frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        return network_image(frame, self.manifest.seeing(), kind=self.kind)

    def _text_features(self, tokens: Array) -> dict[str, Array]:
        """The last TEXTS_KEPT texts are remembered."""
        key = tokens.tobytes()
        if key not in self._texts:
            self._texts[key] = self._session("encode_text").run({"token_ids": tokens})
            if len(self._texts) > TEXTS_KEPT:
                self._texts.popitem(last=False)
        self._texts.move_to_end(key)
        return self._texts[key]

    def _detections(
        self, outputs: Mapping[str, Array], width: int, height: int, threshold: float | None, nms: float | None
    ) -> Detections:
        limit = self.detection.score_threshold if threshold is None else threshold
        return detect(outputs, width=width, height=height, threshold=limit, nms=nms)

    def _session(self, program: str) -> Session:
        """Opened when first needed."""
        if program not in self._sessions:
            self._sessions[program] = Session(
                self._folder,
                program,
                target=self._target,
                threads=self._threads,
                providers=self._providers,
                manifest=self.manifest,
            )
        return self._sessions[program]
