from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from samonnx.runtime import segmenter
from samonnx.runtime.detections import DetectionError, Detections
from samonnx.runtime.manifest import ManifestError, PreprocessingInfo
from samonnx.runtime.preprocessing import FrameError, network_image
from samonnx.runtime.prompts import Box, MaskPrompt, Points, PromptError, Prompts
from samonnx.runtime.segmenter import Segmenter, SegmenterError
from samonnx.runtime.session import Array, Session, SessionError
from samonnx.runtime.tokenizer import Tokenizer, TruncatedTextWarning
from tests.runtime.hand_made_artifact import build as build_tracking
from tests.runtime.hand_made_segment_artifact import CONTEXT, LEVELS, LOW, QUERIES, QUERY_BOXES, TASTES, build, picture

WIDTH, HEIGHT = 44, 30
DOG = Prompts(text="a dog")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Only `segment`."""
    folder = tmp_path_factory.mktemp("artifact") / "whole"
    build(folder, programs=("segment",))
    return folder


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`encode_text`, `encode_image` and `ground`, without `segment`."""
    folder = tmp_path_factory.mktemp("artifact") / "parts"
    build(folder, programs=("encode_text", "encode_image", "ground"))
    return folder


class CountedRuns:
    """How often each program ran."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.of: dict[str, int] = {}
        run = Session.run

        def counted(session: Session, inputs: Mapping[str, npt.ArrayLike]) -> dict[str, Array]:
            self.of[session.program.name] = self.of.get(session.program.name, 0) + 1
            return run(session, inputs)

        monkeypatch.setattr(Session, "run", counted)


def assert_equal(one: Detections, other: Detections) -> None:
    for name in Detections.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


def scores(*, text: str = "visual", shown: float = 0.0, kind: str = "images") -> list[float]:
    """What the artifact's arithmetic gives for `picture()`, by query."""
    image = network_image(picture(), PreprocessingInfo(28), kind=kind)[0].astype(np.float64)
    rows, columns = np.mgrid[0:28, 0:28]
    light = (image * (0.5 + (rows + 2 * columns) / 84)).mean() * np.mean([1.0, 0.5, -0.5, 2.0])
    tokens = Tokenizer(CONTEXT).encode(text)
    words = (1e-5 + 2e-5) * tokens[tokens != 0].mean()
    presence = 1 / (1 + math.exp(-(4 * words + light)))
    logits = [level + words + taste * shown for level, taste in zip(LEVELS, TASTES, strict=True)]
    return [presence / (1 + math.exp(-logit)) for logit in logits]


@pytest.mark.parametrize("artifact", ["whole", "parts"])
@pytest.mark.parametrize("kind", ["images", "video"])
def test_a_frame_and_words_go_in_as_documented(request: pytest.FixtureRequest, artifact: str, kind: str) -> None:
    found = Segmenter(request.getfixturevalue(artifact), kind=kind).segment(picture(), DOG, threshold=0)
    expected = scores(text="a dog", kind=kind)
    np.testing.assert_allclose(found.scores, np.array(expected)[found.indices], rtol=1e-5)
    assert sorted(found.indices.tolist()) == list(range(QUERIES))
    pixels = np.array(QUERY_BOXES) * (WIDTH, HEIGHT, WIDTH, HEIGHT)
    np.testing.assert_allclose(found.boxes, pixels[found.indices])
    assert found.masks.shape == (QUERIES, HEIGHT, WIDTH)
    assert found.mask_logits.shape == (QUERIES, LOW, LOW)


def test_the_two_kinds_of_frames_are_resized_differently(whole: Path) -> None:
    image = Segmenter(whole).segment(picture(), DOG, threshold=0)
    video = Segmenter(whole, kind="video").segment(picture(), DOG, threshold=0)
    assert image.presence != video.presence


@pytest.mark.parametrize(
    ("prompts", "shown"),
    [
        (Prompts(boxes=(Box(11, 15, 33, 30),)), 0.25),
        (Prompts(exemplars=(Box(11, 15, 33, 30, 0),)), -0.25),
        (Prompts(boxes=(Box(0, 0, 44, 30),), exemplars=(Box(11, 15, 33, 30, 0),)), 0.75),
        (Prompts(points=Points(((11, 15), (22, 0), (44, 30)), (1, 0, 0))), 0.75 - 0.5 - 2.0),
        (Prompts(text="a dog", boxes=(Box(11, 15, 33, 30),), points=Points(((11, 15),), (1,))), 1.0),
    ],
    ids=["box", "negative exemplar", "box and exemplar", "points", "everything"],
)
@pytest.mark.parametrize("artifact", ["whole", "parts"])
def test_what_is_shown_goes_in_as_documented(
    request: pytest.FixtureRequest, artifact: str, prompts: Prompts, shown: float
) -> None:
    found = Segmenter(request.getfixturevalue(artifact)).segment(picture(), prompts, threshold=0)
    expected = np.array(scores(text=prompts.text or "visual", shown=shown))
    np.testing.assert_allclose(found.scores, expected[found.indices], rtol=1e-5)


def test_without_words_the_word_is_visual(whole: Path) -> None:
    box = (Box(11, 15, 33, 30),)
    reader = Segmenter(whole)
    assert_equal(
        reader.segment(picture(), Prompts(boxes=box)), reader.segment(picture(), Prompts(text="visual", boxes=box))
    )


@pytest.mark.parametrize(
    "prompts",
    [DOG, Prompts(boxes=(Box(1, 2, 30, 20),)), Prompts(text="a cat", points=Points(((3, 4), (5, 6)), (1, 0)))],
)
def test_the_parts_give_what_the_whole_gives(whole: Path, parts: Path, prompts: Prompts) -> None:
    in_parts = Segmenter(parts)
    expected = Segmenter(whole).segment(picture(), prompts, threshold=0.3, nms=0.5)
    assert_equal(in_parts.segment(picture(), prompts, threshold=0.3, nms=0.5), expected)
    image = in_parts.encode_image(picture())
    assert (image.width, image.height) == (WIDTH, HEIGHT)
    assert_equal(in_parts.ground(image, prompts, threshold=0.3, nms=0.5), expected)


def test_an_image_is_encoded_once_and_a_text_once(parts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = CountedRuns(monkeypatch)
    reader = Segmenter(parts)
    image = reader.encode_image(picture())
    for _ in range(2):
        for text in ("a dog", "a cat", "A  DOG "):
            reader.ground(image, Prompts(text=text))
    assert runs.of == {"encode_image": 1, "encode_text": 2, "ground": 6}


def test_the_text_that_was_not_used_for_longest_is_forgotten(parts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segmenter, "TEXTS_KEPT", 2)
    runs = CountedRuns(monkeypatch)
    reader = Segmenter(parts)
    image = reader.encode_image(picture())
    for number, text in enumerate(("dog", "cat", "dog", "cow", "dog", "cat")):
        reader.ground(image, Prompts(text=text))
        assert runs.of["encode_text"] == (1, 2, 2, 3, 3, 4)[number]


def test_the_thresholds_default_is_the_artifacts(whole: Path) -> None:
    reader = Segmenter(whole)
    assert_equal(reader.segment(picture(), DOG), reader.segment(picture(), DOG, threshold=0.5))
    assert 0 < len(reader.segment(picture(), DOG)) < QUERIES


def test_doubles_are_left_out_when_asked_to(whole: Path) -> None:
    reader = Segmenter(whole)
    everything, distinct = reader.segment(picture(), DOG), reader.segment(picture(), DOG, nms=0.1)
    assert everything.indices.tolist() == [0, 1, 2]
    assert distinct.indices.tolist() == [0, 2]
    assert (everything.suppressed, distinct.suppressed) == (0, 1)


@pytest.mark.parametrize("artifact", ["whole", "parts"])
def test_a_text_that_is_too_long_is_cut_with_a_warning(request: pytest.FixtureRequest, artifact: str) -> None:
    reader = Segmenter(request.getfixturevalue(artifact))
    with pytest.warns(TruncatedTextWarning, match="the text has 11 tokens.* Kept: 'one two three four five six'"):
        long = reader.segment(picture(), Prompts(text="one two three four five six seven eight nine"))
    assert_equal(long, reader.segment(picture(), Prompts(text="one two three four five six")))


def test_a_mask_is_taken_by_a_model_that_has_an_encoder_for_it(tmp_path: Path) -> None:
    build(tmp_path / "masks", masks=1)
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[: HEIGHT // 2] = True
    found = Segmenter(tmp_path / "masks").segment(picture(), Prompts(mask=MaskPrompt(mask)), threshold=0)
    np.testing.assert_allclose(found.scores, np.array(scores(shown=0.5))[found.indices], rtol=1e-5)


def test_prompts_are_checked_before_the_network_runs(parts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = CountedRuns(monkeypatch)
    reader = Segmenter(parts)
    with pytest.raises(PromptError, match=r"box corner \(99, 9\) lies outside the frame, which is 44 x 30 pixels"):
        reader.segment(picture(), Prompts(boxes=(Box(1, 2, 99, 9),)))
    with pytest.raises(PromptError, match=r"nothing is left of the text '&nbsp;' once it is cleaned: name what to"):
        reader.segment(picture(), Prompts(text="&nbsp;"))
    with pytest.raises(PromptError, match="nothing is left of the text '<end_of_text>'"):
        reader.segment(picture(), Prompts(text="<end_of_text>"))
    with pytest.raises(PromptError, match="3 boxes, but the artifact has 2 places for boxes"):
        reader.segment(picture(), Prompts(boxes=(Box(1, 2, 3, 4),) * 3))
    with pytest.raises(PromptError, match="cannot look for things by a mask"):
        reader.segment(picture(), Prompts(mask=MaskPrompt(np.ones((HEIGHT, WIDTH), dtype=bool))))
    with pytest.raises(DetectionError, match="threshold is 50; expected a number from 0 to 1"):
        reader.segment(picture(), DOG, threshold=50)
    assert runs.of == {}


def test_a_frame_that_is_no_image_is_refused(whole: Path, parts: Path) -> None:
    grey = np.zeros((4, 4), dtype=np.uint8)
    with pytest.raises(FrameError, match=r"expected uint8 \[height, width, 3\]"):
        Segmenter(whole).segment(grey, DOG)
    with pytest.raises(FrameError, match=r"expected uint8 \[height, width, 3\]"):
        Segmenter(parts).encode_image(grey)


def test_an_artifact_of_one_program_cannot_keep_images(whole: Path) -> None:
    with pytest.raises(SegmenterError) as caught:
        Segmenter(whole).encode_image(picture())
    assert str(caught.value) == (
        "the artifact of recipe 'hand_made_segment' can only do everything at once: it has no `encode_image` and no "
        "`encode_text` and no `ground`. Use segment(), or compile the recipe with encode_image, encode_text, ground "
        "under `programs:`"
    )


def test_an_image_of_another_artifact_is_refused(parts: Path, tmp_path: Path) -> None:
    build(tmp_path / "other", seed=1)
    image = Segmenter(tmp_path / "other").encode_image(picture())
    with pytest.raises(SegmenterError, match="the image was encoded by another artifact: its recipe or weights are"):
        Segmenter(parts).ground(image, DOG)


def test_an_artifact_that_only_tracks_is_refused(tmp_path: Path) -> None:
    build_tracking(tmp_path / "track")
    with pytest.raises(ManifestError, match="has no program that detects; it has: track"):
        Segmenter(tmp_path / "track")


def test_an_artifact_that_takes_no_words_is_refused(tmp_path: Path) -> None:
    build(tmp_path / "wordless", words=False)
    with pytest.raises(ManifestError, match="has no program that takes words"):
        Segmenter(tmp_path / "wordless")


def test_a_vocabulary_from_the_future_is_refused(tmp_path: Path) -> None:
    build(tmp_path / "future", vocabulary="sentencepiece")
    with pytest.raises(ManifestError) as caught:
        Segmenter(tmp_path / "future")
    assert str(caught.value) == (
        "the artifact of recipe 'hand_made_segment' reads words by the vocabulary 'sentencepiece'; this version of "
        "samonnx knows 'clip'. Update samonnx"
    )


def test_an_artifact_with_some_of_the_parts_says_which_program_is_missing(tmp_path: Path) -> None:
    build(tmp_path / "some", programs=("encode_image", "ground"))
    with pytest.raises(ManifestError, match="has no program 'segment'; it has: encode_image, ground"):
        Segmenter(tmp_path / "some")


def test_a_target_that_was_not_compiled_is_refused(whole: Path) -> None:
    with pytest.raises(SessionError, match="program 'segment' was not compiled for target 'ort-cuda'"):
        Segmenter(whole, target="ort-cuda")


def test_an_unknown_kind_of_frames_is_refused(whole: Path) -> None:
    with pytest.raises(SegmenterError, match="kind is 'stills'; expected 'images' or 'video'"):
        Segmenter(whole, kind="stills")
