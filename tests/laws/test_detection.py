"""Laws of the programs that detect: empty places are inert, places have no order, what is shown is heard, and
`segment` is its three parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from .detection_scenario import (
    A_CAT,
    A_DOG,
    BASE,
    EFFECT,
    WIDE,
    Example,
    Open,
    Outputs,
    assert_equal_but_for_noise,
    assert_heard,
    assert_same,
    distance,
    features_of_frame,
    features_of_words,
    idle_feeds,
    opened,
    show,
)
from .scenario import Array, ellipse
from .test_padding import FINITE, garbage

Artifacts = Callable[..., Path]

DETECTING = ("segment", "ground", "step")
TARGETS = ("onnx", "ort-cpu")
PLACES = 4
KINDS = ("box", "point")

LAW = settings(max_examples=25, deadline=None, derandomize=True)

SHARE = st.floats(0.0, 1.0, width=32)
LABEL = st.integers(0, 1)
BOXES = st.lists(st.tuples(st.tuples(SHARE, SHARE, SHARE, SHARE), LABEL), max_size=PLACES)
POINTS = st.lists(st.tuples(st.tuples(SHARE, SHARE), LABEL), max_size=PLACES)
ORDER = st.permutations(range(PLACES))

BOX: Example = ((0.3, 0.4, 0.24, 0.18), 1)
POINT: Example = ((0.3, 0.4), 1)
SHOWN: Mapping[str, Sequence[Example]] = {
    "box": (BOX, ((0.7, 0.66, 0.13, 0.2), 0)),
    "point": (POINT, ((0.5, 0.1), 0), ((0.2, 0.8), 1)),
}


def base(artifacts: Artifacts, target: str = "onnx") -> Open:
    folder = artifacts(*BASE)
    return lambda program: opened(folder, program, target)


def wide(artifacts: Artifacts) -> Open:
    folder = artifacts(*WIDE, programs=("segment",))
    return lambda program: opened(folder, program)


def feeds_with(
    open_: Open, program: str, box: Sequence[Example] = (), point: Sequence[Example] = ()
) -> dict[str, Array]:
    """Words, a frame, and examples in the first places."""
    feeds = idle_feeds(open_, program)
    show(feeds, "box", dict(enumerate(box)))
    show(feeds, "point", dict(enumerate(point)))
    return feeds


# Empty places are inert


@pytest.mark.parametrize("program", DETECTING)
@LAW
@given(value=FINITE, seed=st.integers(0, 99), used=st.tuples(st.integers(0, 2), st.integers(0, 3)), order=ORDER)
@example(value=3.4e38, seed=0, used=(1, 1), order=[0, 1, 2, 3])
@example(value=-3.4e38, seed=1, used=(0, 0), order=[0, 1, 2, 3])
@example(value=-0.4, seed=2, used=(2, 3), order=[3, 1, 0, 2])
def test_what_lies_in_empty_places_changes_no_output(
    artifacts: Artifacts, program: str, value: float, seed: int, used: tuple[int, int], order: list[int]
) -> None:
    """Huge, negative, inverted: any finite box and point."""
    open_ = base(artifacts)
    feeds = idle_feeds(open_, program)
    for kind, count in zip(KINDS, used, strict=True):
        show(feeds, kind, dict(zip(order, SHOWN[kind][:count], strict=False)))
    dirty = {name: array.copy() for name, array in feeds.items()}
    for kind, plural in (("box", "prompt_boxes"), ("point", "prompt_points")):
        empty = feeds[f"prompt_{kind}_labels"] == -1
        dirty[plural][empty] = garbage(seed, value, dirty[plural][empty].shape)
    assert_same(open_(program).run(dirty), open_(program).run(feeds))


@LAW
@given(value=FINITE, seed=st.integers(0, 99))
@example(value=3.4e38, seed=0)
def test_features_of_words_that_are_not_valid_change_no_output(artifacts: Artifacts, value: float, seed: int) -> None:
    open_ = base(artifacts)
    feeds = feeds_with(open_, "ground", **SHOWN)
    padding = ~feeds["text_valid"]
    assert padding.any()
    dirty = feeds | {"text_features": feeds["text_features"].copy()}
    dirty["text_features"][padding] = garbage(seed, value, dirty["text_features"][padding].shape)
    assert_same(open_("ground").run(dirty), open_("ground").run(feeds))


@LAW
@given(value=FINITE, seed=st.integers(0, 99), boxes=BOXES, points=POINTS)
@example(value=3.4e38, seed=0, boxes=[BOX], points=[POINT])
def test_adding_places_changes_no_output_whatever_lies_in_them(
    artifacts: Artifacts, value: float, seed: int, boxes: list[Example], points: list[Example]
) -> None:
    outputs = []
    for open_ in (base(artifacts), wide(artifacts)):
        feeds = idle_feeds(open_, "segment")
        for name in ("prompt_boxes", "prompt_points", "prompt_masks"):
            if name in feeds:
                feeds[name][:] = garbage(seed, value, feeds[name].shape)
        show(feeds, "box", dict(enumerate(boxes)))
        show(feeds, "point", dict(enumerate(points)))
        outputs.append(open_("segment").run(feeds))
    assert_equal_but_for_noise(outputs[1], outputs[0])


# Places have no order


@pytest.mark.parametrize("target", TARGETS)
@LAW
@given(boxes=BOXES, points=POINTS, box_order=ORDER, point_order=ORDER)
@example(boxes=[BOX] * 4, points=[POINT] * 4, box_order=[3, 2, 1, 0], point_order=[1, 0, 3, 2])
def test_the_order_of_examples_and_the_places_they_take_change_nothing(
    artifacts: Artifacts,
    target: str,
    boxes: list[Example],
    points: list[Example],
    box_order: list[int],
    point_order: list[int],
) -> None:
    open_ = base(artifacts, target)
    straight, permuted = idle_feeds(open_, "segment"), idle_feeds(open_, "segment")
    for kind, examples, order in (("box", boxes, box_order), ("point", points, point_order)):
        show(straight, kind, dict(enumerate(examples)))
        show(permuted, kind, dict(zip(order, examples, strict=False)))
    assert_equal_but_for_noise(open_("segment").run(permuted), open_("segment").run(straight))


# What is shown is heard


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("program", DETECTING)
@pytest.mark.parametrize("words", [A_DOG, ()], ids=["words alone", "not even words"])
def test_without_examples_every_output_is_finite(
    artifacts: Artifacts, program: str, target: str, words: tuple[int, ...]
) -> None:
    open_ = base(artifacts, target)
    for name, array in open_(program).run(idle_feeds(open_, program, words)).items():
        assert np.isfinite(array.astype(np.float64)).all(), name


CHANGES: Mapping[str, tuple[str, Sequence[Example], Sequence[Example]]] = {
    "a box": ("box", (), (BOX,)),
    "a point": ("point", (), (POINT,)),
    "another box": ("box", (BOX,), (BOX, ((0.6, 0.5, 0.3, 0.6), 1))),
    "another point": ("point", (POINT,), (POINT, ((0.6, 0.5), 1))),
    "the place of a box": ("box", (BOX,), (((0.7, 0.4, 0.24, 0.18), 1),)),
    "the size of a box": ("box", (BOX,), (((0.3, 0.4, 0.5, 0.6), 1),)),
    "the place of a point": ("point", (POINT,), (((0.7, 0.4), 1),)),
    "the label of a box": ("box", (BOX,), ((BOX[0], 0),)),
    "the label of a point": ("point", (POINT,), ((POINT[0], 0),)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_what_is_shown_moves_every_output(artifacts: Artifacts, change: str) -> None:
    open_ = base(artifacts)
    kind, *shown = CHANGES[change]
    before, after = (open_("segment").run(feeds_with(open_, "segment", **{kind: examples})) for examples in shown)
    assert_heard(after, before)


def test_a_mask_is_heard_with_its_label_and_an_empty_place_for_one_is_not(artifacts: Artifacts) -> None:
    open_ = wide(artifacts)
    feeds = feeds_with(open_, "segment", **SHOWN)
    side = feeds["prompt_masks"].shape[-1]

    def given_mask(mask: Array, label: int) -> Outputs:
        return open_("segment").run(feeds | {"prompt_masks": mask, "prompt_mask_labels": np.array([[label]], np.int32)})

    left, right = (ellipse(side, cx)[None, None] for cx in (0.3, 0.7))
    nothing, positive = open_("segment").run(feeds), given_mask(left, 1)
    assert_heard(positive, nothing)
    assert_heard(given_mask(left, 0), positive)
    assert_heard(given_mask(right, 1), positive)
    assert_same(given_mask(left, -1), nothing)


# `segment` is its three parts


@pytest.mark.parametrize("target", TARGETS)
@LAW
@given(boxes=BOXES, points=POINTS, words=st.sampled_from([A_DOG, A_CAT, A_CAT[:2]]), frame=st.integers(0, 3))
def test_encoding_words_and_image_and_grounding_them_is_segmenting(
    artifacts: Artifacts,
    target: str,
    boxes: list[Example],
    points: list[Example],
    words: tuple[int, ...],
    frame: int,
) -> None:
    open_ = base(artifacts, target)
    outputs = []
    for program in ("ground", "segment"):
        feeds = idle_feeds(open_, program, words, frame)
        show(feeds, "box", dict(enumerate(boxes)))
        show(feeds, "point", dict(enumerate(points)))
        outputs.append(open_(program).run(feeds))
    errors = distance(*outputs)
    assert max(errors.values()) <= 1e-6, errors


def test_features_of_an_image_serve_many_words_and_those_of_words_many_images(artifacts: Artifacts) -> None:
    open_ = base(artifacts)
    pictures = {frame: features_of_frame(open_, frame) for frame in (0, 2, 7)}
    texts = {words: features_of_words(open_, words) for words in (A_DOG, A_CAT, A_CAT[:2])}
    found: list[Outputs] = []
    for frame, picture in pictures.items():
        for words, text in texts.items():
            feeds = idle_feeds(open_, "segment", words, frame)
            found.append(open_("ground").run(idle_feeds(open_, "ground") | picture | text))
            errors = distance(found[-1], open_("segment").run(feeds))
            assert max(errors.values()) <= 1e-6, (frame, words, errors)
    for one, other in combinations(found, 2):
        assert distance(one, other)["masks"] > EFFECT
