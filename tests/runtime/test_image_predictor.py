from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from samonnx.runtime.frame_fit import FitError
from samonnx.runtime.image_predictor import ImagePredictor, PredictorError
from samonnx.runtime.manifest import ManifestError
from samonnx.runtime.preprocessing import FrameError, network_image
from samonnx.runtime.prompts import Box, MaskPrompt, Points, PromptError, Prompts
from samonnx.runtime.session import Session
from tests.runtime import hand_made_segment_artifact
from tests.runtime.hand_made_sam_artifact import GROWN, LEVELS, LOW, PLACES, RADIUS, SIZE, build
from tests.runtime.hand_made_segment_artifact import picture

Arrays = dict[str, npt.NDArray[np.generic]]

HEIGHT, WIDTH = 30, 48
SCALE = SIZE / WIDTH


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifact") / "sam"
    build(folder)
    return folder


def click(x: float, y: float, label: int = 1) -> Prompts:
    return Prompts(points=Points(((x, y),), (label,)))


def expected_logits(places: list[tuple[float, float, float]], mean: float) -> npt.NDArray[np.float64]:
    """The first candidate; places are x, y in the frame and the push."""
    cells = (np.arange(LOW) + 0.5) * SIZE / LOW
    sums = [push * 10 * (RADIUS - np.hypot(cells[None] - x, cells[:, None] - y)) for x, y, push in places]
    total: npt.NDArray[np.float64] = np.sum(sums, axis=0) + mean
    return total


def test_a_point_in_the_picture_is_asked_where_it_lies_in_the_padded_frame(artifact: Path) -> None:
    predictor = ImagePredictor(artifact)
    encoded = predictor.encode_image(picture(HEIGHT, WIDTH))
    assert (encoded.fit.placed, encoded.fit.frame) == ((40, 64), (64, 64))
    found = predictor.predict(encoded, [click(24, 15), click(6, 3, 0)])
    mean = float(encoded.maps["features"].astype(np.float64).mean())
    assert found.low_res_logits.shape == (2, 3, LOW, LOW)
    for row, (x, y, push) in enumerate([(24, 15, 1), (6, 3, -1)]):
        wanted = expected_logits([(x * SCALE, y * SCALE, push)], mean)
        np.testing.assert_allclose(found.low_res_logits[row, 0], wanted, atol=1e-4)
        np.testing.assert_allclose(found.low_res_logits[row, 1], wanted + push * 10 * GROWN[1], atol=1e-4)
        np.testing.assert_allclose(found.ious[row], np.array(LEVELS) + x * SCALE / 1000, atol=1e-6)


def test_masks_have_the_pictures_size_and_are_the_logits_above_0(artifact: Path) -> None:
    predictor = ImagePredictor(artifact)
    found = predictor.predict(predictor.encode_image(picture(HEIGHT, WIDTH)), [click(24, 15)])
    masks = found.masks()
    assert masks.shape == (1, 3, HEIGHT, WIDTH)
    np.testing.assert_array_equal(masks, found.logits() > 0)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH] + 0.5
    from_point = np.hypot(x - 24, y - 15)
    for mask, grown in zip(masks[0], GROWN, strict=True):
        radius = (RADIUS + grown) / SCALE
        np.testing.assert_array_equal(mask[from_point < radius - 1.5], True)
        np.testing.assert_array_equal(mask[from_point > radius + 1.5], False)


def test_a_box_is_two_places_in_front_of_the_points(artifact: Path) -> None:
    predictor = ImagePredictor(artifact)
    encoded = predictor.encode_image(picture(HEIGHT, WIDTH))
    prompts = Prompts(points=Points(((9, 9),), (0,)), boxes=(Box(3, 6, 30, 24),))
    found = predictor.predict(encoded, [prompts], multimask=False)
    places = [(3.0, 6.0, 0.5), (30.0, 24.0, 0.5), (9.0, 9.0, -1.0)]
    mean = float(encoded.maps["features"].astype(np.float64).mean())
    wanted = expected_logits([(x * SCALE, y * SCALE, push) for x, y, push in places], mean)
    assert found.low_res_logits.shape == (1, 1, LOW, LOW)
    np.testing.assert_allclose(found.low_res_logits[0, 0], wanted, atol=1e-4)
    assert found.ious[0, 0] == pytest.approx(LEVELS[0] + 3 * SCALE / 1000)


def test_earlier_logits_go_in_and_only_then_the_larger_graph_runs(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran, original = [], Session.run

    def noted(session: Session, inputs: Arrays, **options: bool) -> Arrays:
        ran.append(session.program.name)
        return original(session, inputs, **options)

    monkeypatch.setattr(Session, "run", noted)
    predictor = ImagePredictor(artifact)
    encoded = predictor.encode_image(picture(HEIGHT, WIDTH))
    first = predictor.predict(encoded, [click(24, 15)])
    earlier = first.low_res_logits[:, 1:2]
    again = predictor.predict(encoded, [click(24, 15)], earlier=earlier)
    assert ran == ["encode_image", "predict@points", "predict"]
    np.testing.assert_allclose(again.low_res_logits, first.low_res_logits + earlier, atol=1e-4)


def test_a_graph_with_a_fixed_number_of_rows_is_called_as_often_as_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path / "any", programs=("encode_image", "predict"))
    build(tmp_path / "rows", programs=("encode_image", "predict"), rows=3)
    calls: list[int] = []
    original = Session.run

    def counted(session: Session, inputs: Arrays, **options: bool) -> Arrays:
        if "point_labels" in inputs:
            calls.append(len(inputs["point_labels"]))
        return original(session, inputs, **options)

    monkeypatch.setattr(Session, "run", counted)
    points = np.random.default_rng(0).uniform(0, 30, (7, 2))
    found = []
    for name in ("any", "rows"):
        predictor = ImagePredictor(tmp_path / name)
        assert predictor.rows == {"any": None, "rows": 3}[name]
        found.append(predictor.predict_points(predictor.encode_image(picture(HEIGHT, WIDTH)), points))
    assert calls == [7, 3, 3, 3]
    np.testing.assert_array_equal(found[0].low_res_logits, found[1].low_res_logits)
    np.testing.assert_array_equal(found[0].ious, found[1].ious)


def test_points_alone_are_prompts_of_one_point(artifact: Path) -> None:
    predictor = ImagePredictor(artifact)
    encoded = predictor.encode_image(picture(HEIGHT, WIDTH))
    points = np.array([(24.0, 15.0), (1.5, 29.0)])
    one, other = (
        predictor.predict_points(encoded, points),
        predictor.predict(encoded, [click(x, y) for x, y in points]),
    )
    np.testing.assert_array_equal(one.low_res_logits, other.low_res_logits)


def test_sam_2_is_stretched_and_its_maps_go_from_program_to_program(tmp_path: Path) -> None:
    manifest = build(tmp_path / "sam2", programs=("encode_image", "predict"), rows=2, sam2=True)
    predictor = ImagePredictor(tmp_path / "sam2")
    frame = picture(HEIGHT, WIDTH)
    encoded = predictor.encode_image(frame)
    assert sorted(encoded.maps) == ["features", "high_res_0"]
    image = network_image(frame, manifest.seeing(), kind="images")
    np.testing.assert_allclose(encoded.maps["features"].mean(), image.mean(), atol=1e-5)
    found = predictor.predict(encoded, [click(24, 15)])
    wanted = expected_logits([(24 / WIDTH * SIZE, 15 / HEIGHT * SIZE, 1.0)], float(image.mean()))
    np.testing.assert_allclose(found.low_res_logits[0, 0], wanted, atol=1e-3)
    assert found.masks().shape == (1, 3, HEIGHT, WIDTH)


def test_prompts_that_cannot_be_asked_say_which_and_why(artifact: Path) -> None:
    predictor = ImagePredictor(artifact)
    encoded = predictor.encode_image(picture(HEIGHT, WIDTH))
    many = Prompts(points=Points(((1, 1),) * (PLACES + 1), (1,) * (PLACES + 1)))
    for prompts, message in (
        ([], "no prompts: give points or a box for at least one thing"),
        ([click(1, 1), click(49, 2)], r"prompt 1: point \(49, 2\) lies outside the frame, which is 48 x 30 pixels"),
        ([Prompts(text="a dog")], "prompt 0: words and exemplars are for `segment`; here a prompt is points and a box"),
        ([Prompts(mask=MaskPrompt(np.ones((30, 48), bool)))], "prompt 0: `predict` takes no masks"),
        ([many], r"prompt 0: 5 points on one object, .* 4 prompt places.*--set programs.predict.points=5"),
    ):
        with pytest.raises(PromptError, match=message):
            predictor.predict(encoded, prompts)
    with pytest.raises(PromptError) as caught:
        predictor.predict(encoded, [click(1, 1)], earlier=np.zeros((1, 3, LOW, LOW), np.float32))
    assert str(caught.value) == (
        "earlier logits are float32 [1, 3, 16, 16]; expected float32 [1, 1, 16, 16]: one of the low-resolution masks "
        "for each prompt"
    )


def test_pictures_that_cannot_be_looked_at_say_why(artifact: Path, tmp_path: Path) -> None:
    predictor = ImagePredictor(artifact)
    with pytest.raises(FrameError, match=r"expected uint8 \[height, width, 3\] in RGB order, got float64 \[2, 2\]"):
        predictor.encode_image(np.zeros((2, 2)))  # type: ignore[arg-type]  # the wrong type is what is tested
    with pytest.raises(FitError) as caught:
        predictor.encode_image(np.zeros((1, 200, 3), np.uint8))
    assert str(caught.value) == (
        "the picture is 200 x 1 pixels, and 64 x 0 when its long side is 64, as the network takes it: nothing is left "
        "of it. Cut it to a shorter piece"
    )
    build(tmp_path / "other", seed=1)
    encoded = ImagePredictor(tmp_path / "other").encode_image(picture(HEIGHT, WIDTH))
    with pytest.raises(PredictorError, match="the picture was encoded by another artifact: its recipe or weights are"):
        predictor.predict(encoded, [click(1, 1)])


def test_artifacts_that_cannot_be_asked_say_why(tmp_path: Path) -> None:
    build(tmp_path / "encoder", programs=("encode_image",))
    with pytest.raises(ManifestError) as caught:
        ImagePredictor(tmp_path / "encoder")
    assert str(caught.value) == (
        "the artifact of recipe 'hand_made_sam' has no program predict; it has: encode_image. Masks of an image need "
        "both: compile a recipe with `encode_image` and `predict` under `programs:`"
    )
    hand_made_segment_artifact.build(tmp_path / "segment", programs=("segment",))
    with pytest.raises(ManifestError, match="has no program encode_image and no program predict; it has: segment"):
        ImagePredictor(tmp_path / "segment")
    with pytest.raises(ManifestError, match="does not exist; expected the output folder of `samonnx compile`"):
        ImagePredictor(tmp_path / "nowhere")
    manifest = build(tmp_path / "odd")
    text = manifest.to_json().replace('"point_coords"', '"tracks"')
    (tmp_path / "odd" / "manifest.json").write_text(text)
    with pytest.raises(PredictorError) as odd:
        ImagePredictor(tmp_path / "odd")
    assert str(odd.value) == (
        "program `predict` of recipe 'hand_made_sam' has an input 'tracks' that `encode_image` does not give, and no "
        "input 'point_coords': this version of samonnx does not know how to call it"
    )
