from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import pytest
import torch

from samonnx.build_model import build_model
from samonnx.eager_tracker import eager_tracker
from samonnx.models.reference_tracker import FramePrompt, encode_image
from samonnx.models.tracker import TrackedModel
from samonnx.recipe import Recipe, load_recipe
from samonnx.runtime.manifest import Manifest
from samonnx.runtime.object_group import RowInputs
from samonnx.runtime.preprocessing import network_image
from samonnx.runtime.prompt_rows import row_inputs
from samonnx.runtime.prompts import Points, Prompts
from samonnx.runtime.session import Session
from samonnx.runtime.tracker import Tracker
from samonnx.seeded import seeded_frame
from samonnx.validation_sides import OBJECT, EagerSide, GraphSide
from samonnx.verify_clip import model_frame
from tests.compiled_artifact import TINY
from tests.runtime.hand_made_artifact import SIZE, build

FRAMES = 6


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sides") / "hand_made"
    build(folder, objects=1, first=True, filled=(1,))
    return folder


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe(TINY.with_name("samurai_tiny.yaml"))


@pytest.fixture(scope="module")
def model(recipe: Recipe) -> TrackedModel:
    return cast(TrackedModel, build_model(recipe).module)


def clicked(x: float, y: float) -> Prompts:
    return Prompts(points=Points(((x, y),), (1,)))


def side_of(folder: Path, num_frames: int = FRAMES) -> GraphSide:
    manifest = Manifest.load(folder)
    return GraphSide(manifest, partial(Session, folder, threads=1, manifest=manifest), num_frames)


def picture(index: int) -> npt.NDArray[np.uint8]:
    return np.round(seeded_frame(index, SIZE) * 255).astype(np.uint8).transpose(1, 2, 0)


def test_the_graph_side_is_the_runtimes_tracker(artifact: Path) -> None:
    """The same graph for every frame, the same numbers to the bit; a correction among the frames."""
    manifest, tracker, graph = Manifest.load(artifact), Tracker(artifact, num_frames=FRAMES), side_of(artifact)
    row = partial(row_inputs, manifest, OBJECT, width=SIZE, height=SIZE)
    ran = []
    for t in range(FRAMES):
        image = network_image(picture(t), manifest.seeing())
        given = clicked(8, 11) if t == 0 else None
        expected = tracker.step(picture(t), {} if given is None else {OBJECT: given})
        found = graph.step(t, image, None if given is None else row(given))
        if t == 3:
            expected = tracker.correct({OBJECT: clicked(20, 5)})
            found = graph.correct(t, image, row(clicked(20, 5), earlier=found.low_res_masks[None]))
        np.testing.assert_array_equal(found.low_res_masks, expected.low_res_logits[0])
        np.testing.assert_array_equal(found.ious, [*expected.ious[0], expected.iou[0]])
        assert (found.mask_choice, found.object_score) == (expected.mask_choice[0], expected.object_scores[0])
        assert tracker.open_programs == (graph.graph,)
        ran.append(graph.graph)
    assert ran[:3] == ["track@first", "track@1", "track"]


def test_a_step_from_a_given_bank_forgets_the_graphs_own(artifact: Path) -> None:
    manifest, graph, other = Manifest.load(artifact), side_of(artifact), side_of(artifact)
    row = partial(row_inputs, manifest, OBJECT, width=SIZE, height=SIZE)
    images = [network_image(picture(t), manifest.seeing()) for t in range(3)]
    for side, place in ((graph, (8, 11)), (other, (25, 3))):
        side.step(0, images[0], row(clicked(*place)))
    bank = {name: rows.copy() for name, rows in other._seating.groups[0].bank_rows().items()}
    expected = other.step(1, images[1])
    assert not np.array_equal(graph.step(1, images[1]).low_res_masks, expected.low_res_masks)
    np.testing.assert_array_equal(graph.step(1, images[1], None, bank).low_res_masks, expected.low_res_masks)


def test_the_eager_side_is_the_reference_though_it_keeps_no_masks(recipe: Recipe, model: TrackedModel) -> None:
    tracker, side = eager_tracker(model, recipe.memory, FRAMES), EagerSide(model, recipe.memory, FRAMES)
    coords, labels = np.array([[38, 51], [0, 0]], np.float32), np.array([1, -1], np.int32)
    for t in range(FRAMES):
        image = model_frame(model, t)
        given = RowInputs(coords, labels, attend_memory=False) if t == 0 else None
        prompt = FramePrompt(torch.from_numpy(coords[:1]), torch.from_numpy(labels[:1])) if t == 0 else None
        found = side.step(t, side.encode(image), given)
        with torch.inference_mode():
            record = tracker.step(t, encode_image(model, torch.from_numpy(image)), prompt, attend_memory=t > 0)
        np.testing.assert_array_equal(found.low_res_masks, record.output.low_res_masks[0, 0])
        assert found.mask_choice == record.output.mask_choice[0]
        assert found.motion is not None
        assert record.motion is not None
        assert found.motion.phase == record.motion.phase[0]
        np.testing.assert_array_equal(found.motion.mean, record.motion.state.mean[0])
    kept = side._tracker.record(FRAMES - 1)
    assert kept.output.masks.numel() == kept.output.low_res_masks.numel() == 0


@pytest.mark.parametrize("kind", ["mask", "correction"])
def test_a_row_reaches_the_reference_whole(recipe: Recipe, model: TrackedModel, kind: str) -> None:
    size = model.tracker.sizes.image_size
    logits = np.linspace(-3, 3, (size // 4) ** 2, dtype=np.float32).reshape(1, size // 4, size // 4)
    mask = np.zeros((size, size), np.float32)
    mask[20:60, 30:90] = 1
    coords, labels = np.array([[38, 51]], np.float32), np.array([1], np.int32)
    if kind == "mask":
        given, prompt = RowInputs(mask=mask), FramePrompt(mask=torch.from_numpy(mask))
    else:
        given = RowInputs(coords, labels, None, logits, attend_memory=False)
        prompt = FramePrompt(torch.from_numpy(coords), torch.from_numpy(labels), None, torch.from_numpy(logits[0]))
    side, tracker = EagerSide(model, recipe.memory, 1), eager_tracker(model, recipe.memory, 1)
    maps = side.encode(model_frame(model, 0))
    found = side.step(0, maps, given)
    with torch.inference_mode():
        record = tracker.step(0, maps, prompt, attend_memory=False)
    np.testing.assert_array_equal(found.low_res_masks, record.output.low_res_masks[0, 0])
