"""What each side is given, by two sides that write it down."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from samonnx.models.reference_tracker import ImageFeatures
from samonnx.runtime.manifest import Manifest
from samonnx.runtime.object_group import RowInputs
from samonnx.runtime.preprocessing import network_image
from samonnx.runtime.prompts import Box, MaskPrompt, Points, PromptError, Prompts
from samonnx.validation import FrameFigures, SideFrame
from samonnx.validation_clip import Clip, video_clip
from samonnx.validation_run import Comparer
from samonnx.validation_sides import EagerSide, GraphSide
from tests.runtime.hand_made_artifact import LOW, build

WIDTH, HEIGHT = 40, 20
BOX = Prompts(boxes=(Box(5, 5, 20, 15),))
CLICK = Prompts(points=Points(((10.0, 10.0),), (1,)))

MAPS = ("high_res_0", "high_res_1", "features")


@dataclass
class Side:
    """Both sides in one class; logits are `level` everywhere."""

    level: float
    reads_maps: bool = False
    calls: list[tuple[str, int, RowInputs | None, object]] = field(default_factory=list)
    images: list[npt.NDArray[np.float32]] = field(default_factory=list)
    graph: str = "track"

    def _frame(self) -> SideFrame:
        maps = {name: np.full(3, self.level, np.float32) for name in MAPS} if self.reads_maps else {}
        logits = np.full((LOW, LOW), self.level, np.float32)
        return SideFrame(logits, np.zeros(4, np.float32), 0, 1.0, None, maps)

    def step(self, frame_index: int, image: Any, given: RowInputs | None = None, bank: object = None) -> SideFrame:
        self.calls.append(("step", frame_index, given, image if isinstance(image, ImageFeatures) else bank))
        self.images += [image] if isinstance(image, np.ndarray) else []
        return self._frame()

    def correct(self, frame_index: int, image: object, given: RowInputs) -> SideFrame:
        self.calls.append(("correct", frame_index, given, None))
        return self._frame()

    def encode(self, image: object) -> ImageFeatures:
        return ImageFeatures(*(torch.full((3,), 8.0) for _ in MAPS))

    def bank(self, manifest: Manifest, frame_index: int) -> str:
        return f"bank before {frame_index}"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return build(tmp_path_factory.mktemp("run") / "hand_made")


def clip_of(folder: Path, prompts: dict[int, Prompts], frames: int = 5) -> Clip:
    for t in range(frames):
        noise = np.random.default_rng(t).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"{t}.png")
    return video_clip(folder, None, prompts)


def run(manifest: Manifest, clip: Clip, graph: Side, eager: Side, from_reference: bool = False) -> list[FrameFigures]:
    sides = cast(GraphSide, graph), cast(EagerSide, eager)
    return list(Comparer(manifest, *sides, from_reference=from_reference).run(clip))


def given_at(side: Side, what: str, frame: int) -> RowInputs:
    found = [given for kind, index, given, _ in side.calls if (kind, index) == (what, frame)]
    assert found[-1] is not None
    return found[-1]


def test_frames_are_prepared_as_the_tracker_does_it_from_the_first_prompt_on(
    manifest: Manifest, tmp_path: Path
) -> None:
    clip, graph, eager = clip_of(tmp_path, {2: BOX}), Side(1.0), Side(2.0)
    figures = run(manifest, clip, graph, eager)
    assert [(one.frame, one.prompted) for one in figures] == [(2, True), (3, False), (4, False)]
    for image, frame in zip(graph.images, list(video_clip(tmp_path, None, {}).frames)[2:], strict=True):
        np.testing.assert_array_equal(image, network_image(frame, manifest.seeing(), kind="images"))
    assert [(kind, index, given is not None) for kind, index, given, _ in graph.calls] == [
        ("step", 2, True), ("step", 3, False), ("step", 4, False),
    ]  # fmt: skip
    assert given_at(graph, "step", 2).attend_memory is False


@pytest.mark.parametrize(("from_reference", "of_graph"), [(False, 1.0), (True, 2.0)])
def test_a_later_click_corrects_with_the_frames_own_logits(
    manifest: Manifest, tmp_path: Path, from_reference: bool, of_graph: float
) -> None:
    clip, graph, eager = clip_of(tmp_path, {0: BOX, 3: CLICK}), Side(1.0), Side(2.0)
    run(manifest, clip, graph, eager, from_reference)
    assert [(kind, index) for kind, index, *_ in graph.calls if index == 3] == [("step", 3), ("correct", 3)]
    assert [given is None for _, index, given, _ in eager.calls if index == 3] == [True, False]
    for side, what, level in ((graph, "correct", of_graph), (eager, "step", 2.0)):
        logits = given_at(side, what, 3).previous_logits
        assert logits is not None
        assert logits.shape == (1, LOW, LOW)
        assert (logits == level).all()


def test_a_later_mask_is_given_at_once(manifest: Manifest, tmp_path: Path) -> None:
    mask = Prompts(mask=MaskPrompt(np.ones((HEIGHT, WIDTH), np.bool_)))
    clip, graph, eager = clip_of(tmp_path, {0: BOX, 3: mask}), Side(1.0), Side(2.0)
    run(manifest, clip, graph, eager)
    assert [(kind, index) for kind, index, *_ in graph.calls if index == 3] == [("step", 3)]
    assert given_at(graph, "step", 3).mask is not None
    assert given_at(eager, "step", 3).mask is not None


def test_the_references_memory_is_put_into_every_step_but_the_first(manifest: Manifest, tmp_path: Path) -> None:
    banks = {}
    for from_reference in (False, True):
        graph = Side(1.0)
        run(manifest, clip_of(tmp_path, {1: BOX}, frames=4), graph, Side(2.0), from_reference)
        banks[from_reference] = [bank for *_, bank in graph.calls]
    assert banks == {False: [None] * 3, True: [None, "bank before 2", "bank before 3"]}


def test_maps_that_the_graph_gives_are_what_the_reference_goes_on_from(manifest: Manifest, tmp_path: Path) -> None:
    for reads, level, error in ((False, 8.0, None), (True, 1.0, 7 / 8)):
        eager = Side(2.0)
        figures = run(manifest, clip_of(tmp_path, {0: BOX}, frames=1), Side(1.0, reads_maps=reads), eager)
        maps = eager.calls[0][3]
        assert isinstance(maps, ImageFeatures)
        assert all((getattr(maps, name) == level).all() for name in MAPS)
        assert figures[0].encoder_error == error


def test_a_prompt_after_the_last_frame_is_an_error_where_the_file_does_not_tell_its_length(
    manifest: Manifest, tmp_path: Path
) -> None:
    with pytest.raises(PromptError, match="a prompt on frame 7, but the clip has 5 frames"):
        run(manifest, clip_of(tmp_path, {0: BOX, 7: CLICK}), Side(1.0), Side(2.0))
