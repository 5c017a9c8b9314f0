"""Laws of `step`: it is `segment` and `track` of one frame, each as if the other were not there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from .detection_scenario import (
    A_CAT,
    A_DOG,
    BASE,
    EFFECT,
    Example,
    Open,
    Outputs,
    assert_equal_but_for_noise,
    assert_same,
    detections,
    distance,
    idle_feeds,
    opened,
    show,
)
from .scenario import Array, Given, Prompts, box, click, ellipse, give, next_bank

Artifacts = Callable[..., Path]

FRAMES = 6
VARIANTS: Mapping[str, tuple[str, ...]] = {"one object": (), "two objects": BASE}

BOX: Example = ((0.3, 0.4, 0.24, 0.18), 1)
NOT_THIS: Example = ((0.7, 0.66, 0.13, 0.2), 0)
POINT: Example = ((0.6, 0.2), 1)


@dataclass(frozen=True)
class Clip:
    """What each object is prompted with, and what the detector is asked, by frame."""

    objects: tuple[Prompts, ...] = ()
    words: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    """On frames that are not named the words are A_DOG."""
    boxes: Mapping[int, tuple[Example, ...]] = field(default_factory=dict)
    points: Mapping[int, tuple[Example, ...]] = field(default_factory=dict)


CLIPS = {
    "words alone": Clip(),
    "a click": Clip(objects=({0: click(33.6, 44.8)},)),
    "clicks, masks, boxes, and other words and examples on later frames": Clip(
        objects=({0: click(33.6, 44.8), 3: click(60.0, 50.0, 0)}, {1: box(10.0, 10.0, 40.0, 90.0)}),
        words={2: A_CAT, 4: ()},
        boxes={1: (BOX, NOT_THIS), 4: (BOX,)},
        points={1: (POINT,), 3: (POINT,)},
    ),
    "masks": Clip(
        objects=({1: Given(mask=ellipse(112))}, {0: Given(mask=ellipse(112, 0.7)), 2: click(70.0, 30.0)}),
        boxes={0: (BOX,)},
    ),
}


def program_opener(artifacts: Artifacts, variant: str = "two objects", target: str = "onnx") -> Open:
    folder = artifacts(*VARIANTS[variant])
    return lambda program: opened(folder, program, target)


def frame_feeds(open_: Open, clip: Clip, frame: int) -> dict[str, Array]:
    """Inputs of `step`, with an empty bank; prompts of objects that the graph has no row for are left out."""
    feeds = idle_feeds(open_, "step", clip.words.get(frame, A_DOG), frame)
    show(feeds, "box", dict(enumerate(clip.boxes.get(frame, ()))))
    show(feeds, "point", dict(enumerate(clip.points.get(frame, ()))))
    for row, prompts in enumerate(clip.objects[: len(feeds["attend_memory"])]):
        if frame in prompts:
            give(feeds, row, prompts[frame], None)
    return feeds


def run_alone(open_: Open, program: str, feeds: Outputs) -> Outputs:
    """`program` on those of the feeds that it takes."""
    return open_(program).run({port.name: feeds[port.name] for port in open_(program).program.inputs})


@pytest.mark.parametrize("target", ["onnx", "ort-cpu"])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("clip", CLIPS)
def test_every_step_of_a_clip_equals_segment_and_track_apart(
    artifacts: Artifacts, clip: str, variant: str, target: str
) -> None:
    """Each way with its own bank, fed back."""
    open_ = program_opener(artifacts, variant, target)
    together: Outputs = {}
    apart: Outputs = {}
    for frame in range(FRAMES):
        feeds = frame_feeds(open_, CLIPS[clip], frame)
        together = open_("step").run(feeds | next_bank(together))
        apart = run_alone(open_, "track", feeds | next_bank(apart))
        found = {name: array for name, array in together.items() if name in apart}
        assert_equal_but_for_noise(found, apart)
        detected = {name: array for name, array in together.items() if name not in apart}
        assert detected.keys() == {f"detection.{name}" for name in detections(together)}
        assert_equal_but_for_noise(detections(together), run_alone(open_, "segment", feeds))
    tracked = [bool((frames >= 0).any()) for frames in together["next_bank.memory_frame"]]
    assert tracked == [bool(prompts) for prompts in (*CLIPS[clip].objects, {}, {})][: len(tracked)]


LAW = settings(max_examples=10, deadline=None, derandomize=True)
EXAMPLES = st.lists(st.sampled_from([BOX, NOT_THIS]), max_size=2).map(tuple)


def after_two_frames(open_: Open) -> dict[str, Array]:
    """Feeds of the third frame of a clip, its bank among them."""
    clip = CLIPS["clicks, masks, boxes, and other words and examples on later frames"]
    outputs: Outputs = {}
    for frame in range(2):
        outputs = open_("step").run(frame_feeds(open_, clip, frame) | next_bank(outputs))
    return frame_feeds(open_, clip, 2) | next_bank(outputs)


@LAW
@drawn(words=st.sampled_from([A_DOG, A_CAT, ()]), boxes=EXAMPLES, points=st.booleans())
def test_what_the_detector_is_asked_changes_no_track(
    artifacts: Artifacts, words: tuple[int, ...], boxes: tuple[Example, ...], points: bool
) -> None:
    open_ = program_opener(artifacts)
    feeds = after_two_frames(open_)
    asked = {name: array for name, array in idle_feeds(open_, "segment", words, 2).items() if name != "image"}
    show(asked, "box", dict(enumerate(boxes)))
    show(asked, "point", {0: POINT} if points else {})
    expected, found = open_("step").run(feeds), open_("step").run(feeds | asked)
    tracks = run_alone(open_, "track", feeds).keys()
    assert_same({name: found[name] for name in tracks}, {name: expected[name] for name in tracks})


@LAW
@drawn(prompted=st.integers(0, 2), seed=st.integers(0, 99))
def test_what_is_tracked_changes_no_detection(artifacts: Artifacts, prompted: int, seed: int) -> None:
    open_ = program_opener(artifacts)
    feeds = after_two_frames(open_)
    changed = {name: array.copy() for name, array in feeds.items()}
    random = np.random.default_rng(seed)
    for name in ("bank.memory", "bank.pointer"):
        changed[name] += random.standard_normal(changed[name].shape, dtype=np.float32)
    for row in range(prompted):
        give(changed, row, click(float(random.uniform(0, 112)), 20.0), None)
    expected, found = open_("step").run(feeds), open_("step").run(changed)
    assert_same(detections(found), detections(expected))
    assert distance(found, expected)["masks"] > EFFECT


def test_another_frame_moves_masks_of_tracks_and_of_detections(artifacts: Artifacts) -> None:
    open_ = program_opener(artifacts)
    feeds = after_two_frames(open_)
    other = feeds | {"image": idle_feeds(open_, "segment", frame=7)["image"]}
    moved = distance(open_("step").run(other), open_("step").run(feeds))
    assert min(moved[name] for name in ("masks", "object_pointer", "detection.masks")) > EFFECT
