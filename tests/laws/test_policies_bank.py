"""Laws 2 to 5 for each memory policy: padding is inert, objects are independent, calls are stateless, and frame indices
rule, not the order of slots."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from samonnx.models.motion_selection import START

from .conftest import OpenPolicy
from .equal_step import OpenedGraph, differences
from .policies import OBJECTS, POLICIES
from .scenario import Array, Given, Prompts, box, ellipse, empty_bank, give, idle_feeds, next_bank, run_graph
from .test_padding import FINITE, garbage

LAW = settings(
    max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
NOISE = 1e-5
FRAMES = 12
KINDS = ("memory", "pointer")
FILTER = ("next_bank.kalman_mean", "next_bank.kalman_covariance")

every_policy = pytest.mark.parametrize("policy", POLICIES)


def prompts(size: int) -> list[Prompts]:
    """The second object is prompted late, so that its bank is empty at first; the third has two conditioning frames."""
    return [
        {0: Given(points=((0.3 * size, 0.4 * size, 1),))},
        {3: box(0.2 * size, 0.3 * size, 0.7 * size, 0.8 * size)},
        {0: Given(mask=ellipse(size)), 1: Given(points=((0.5 * size, 0.4 * size, 1),))},
    ]


@cache
def clip(graph: OpenedGraph) -> list[dict[str, Array]]:
    return run_graph(graph, prompts(graph.manifest.seeing().size), FRAMES)


def bank_before(graph: OpenedGraph, frame: int) -> dict[str, Array]:
    return next_bank(clip(graph)[frame - 1]) if frame else empty_bank(graph)


def feeds_of(graph: OpenedGraph, frame: int) -> dict[str, Array]:
    """The clip's frame with its bank and its prompts."""
    feeds = idle_feeds(graph, frame, FRAMES)
    for row, own in enumerate(prompts(graph.manifest.seeing().size)):
        if frame in own:
            give(feeds, row, own[frame], None)
    return feeds | {name: array.copy() for name, array in bank_before(graph, frame).items()}


def results(outputs: Mapping[str, Array]) -> dict[str, Array]:
    """What a caller reads, and the state that is the object's, not a slot's."""
    slots = tuple(f"next_bank.{kind}" for kind in KINDS)
    return {name: array for name, array in outputs.items() if not name.startswith((*slots, "read_bank/"))}


def kind_of(name: str) -> str:
    """ "next_bank.memory_accepted" → "memory"."""
    return name.split(".")[1].split("_")[0]


def assert_equal_but_for_noise(
    found: Mapping[str, Array], expected: Mapping[str, Array], rows: Sequence[int] | None = None
) -> None:
    off = {name: error for name, error in differences(found, expected, rows).items() if not error <= NOISE}
    assert not off


@every_policy
@LAW
@given(frame=st.integers(0, 5), value=FINITE, seed=st.integers(0, 99))
def test_content_of_empty_slots_changes_no_output(
    graph_of: OpenPolicy, policy: str, frame: int, value: float, seed: int
) -> None:
    graph = graph_of(policy)
    feeds = feeds_of(graph, frame)
    clean = graph.run(feeds)
    for name in [name for name in feeds if name.startswith("bank.") and kind_of(name) in KINDS]:
        empty = feeds[f"bank.{kind_of(name)}_frame"] == -1
        if name in ("bank.memory", "bank.pointer"):
            feeds[name][empty] = garbage(seed, value, feeds[name][empty].shape) if empty.any() else 0
        elif feeds[name].dtype == bool:
            feeds[name][empty] = seed % 2 == 0
    found = graph.run(feeds)
    for name, expected in clean.items():
        if name.startswith("read_bank/"):
            continue
        assert np.isfinite(expected.astype(np.float64)).all(), name
        rows = np.full(expected.shape[:1], True)
        if name.startswith("next_bank.") and kind_of(name) in KINDS:
            rows = clean[f"next_bank.{kind_of(name)}_frame"] != -1
        np.testing.assert_array_equal(found[name][rows], expected[rows], err_msg=name)


@LAW
@given(frame=st.integers(0, 3), value=FINITE, seed=st.integers(0, 99))
def test_a_filter_that_starts_anew_does_not_see_what_was_left_in_it(
    graph_of: OpenPolicy, frame: int, value: float, seed: int
) -> None:
    graph = graph_of("samurai")
    feeds = feeds_of(graph, frame)
    clean = graph.run(feeds)
    fresh = feeds["bank.stable_frames"] == 0
    for name in ("bank.kalman_mean", "bank.kalman_covariance"):
        feeds[name][fresh] = garbage(seed, value, feeds[name][fresh].shape) if fresh.any() else 0
    found = graph.run(feeds)
    for name, expected in results(clean).items():
        rows = (clean["phase"] == START) | ~fresh if name in FILTER else np.full(OBJECTS, True)
        np.testing.assert_array_equal(found[name][rows], expected[rows], err_msg=name)


@every_policy
@LAW
@given(value=FINITE, seed=st.integers(0, 99), used=st.integers(0, 3), order=st.permutations(range(4)))
def test_content_and_position_of_empty_prompt_places_change_no_output(
    graph_of: OpenPolicy, policy: str, value: float, seed: int, used: int, order: list[int]
) -> None:
    graph = graph_of(policy)
    feeds = feeds_of(graph, 6)
    points = ((33.0, 44.0, 1), (50.0, 60.0, 0), (70.0, 20.0, 1))[:used]
    for place, (x, y, label) in enumerate(points):
        feeds["point_coords"][0, place], feeds["point_labels"][0, place] = (x, y), label
    clean = graph.run(feeds)
    dirty = dict(feeds)
    dirty["point_coords"][0, used:] = garbage(seed, value, (4 - used, 2))
    dirty["point_coords"][1:] = garbage(seed, value, (OBJECTS - 1, 4, 2))
    dirty["point_coords"], dirty["point_labels"] = dirty["point_coords"][:, order], dirty["point_labels"][:, order]
    for name in ("mask_prompt", "prev_logits"):
        dirty[name][:] = garbage(seed, value, dirty[name].shape)
    found = graph.run(dirty)
    assert_equal_but_for_noise(found, results(clean))


@every_policy
@LAW
@given(rows=st.lists(st.integers(0, OBJECTS - 1), min_size=OBJECTS, max_size=OBJECTS), frame=st.integers(0, FRAMES - 1))
def test_an_object_is_tracked_alike_in_every_row_and_beside_any_others(
    graph_of: OpenPolicy, policy: str, rows: list[int], frame: int
) -> None:
    graph = graph_of(policy)
    feeds, expected = feeds_of(graph, frame), clip(graph)[frame]
    shared = ("image", "frame_index", "num_frames")
    found = graph.run({name: array if name in shared else array[rows] for name, array in feeds.items()})
    assert_equal_but_for_noise(found, expected, rows)


@every_policy
@LAW
@given(seed=st.integers(0, 10_000), frame=st.integers(1, FRAMES - 1))
def test_a_permutation_of_slots_changes_nothing(graph_of: OpenPolicy, policy: str, seed: int, frame: int) -> None:
    """Slots move with their frame and their flags."""
    graph = graph_of(policy)
    feeds, straight = feeds_of(graph, frame), clip(graph)[frame]
    random = np.random.default_rng(seed)
    orders = {kind: random.permutation(feeds[f"bank.{kind}_frame"].shape[1]) for kind in KINDS}
    for name in [name for name in feeds if name.startswith("bank.") and kind_of(name) in KINDS]:
        feeds[name] = np.ascontiguousarray(feeds[name][:, orders[kind_of(name)]])
    permuted = graph.run(feeds)
    assert_equal_but_for_noise(permuted, results(straight))
    flags = [name for name in straight if name.startswith("next_bank.") and straight[name].dtype == bool]
    for row in range(OBJECTS):
        for name in flags:
            frames = f"next_bank.{kind_of(name)}_frame"
            held = [sorted(zip(out[frames][row], out[name][row], strict=True)) for out in (straight, permuted)]
            assert held[0] == held[1], name


@every_policy
@LAW
@given(order=st.permutations(range(0, FRAMES, 2)))
def test_calls_are_stateless_in_any_order(graph_of: OpenPolicy, policy: str, order: list[int]) -> None:
    graph = graph_of(policy)
    for frame in order[:3]:
        found = graph.run(feeds_of(graph, frame))
        for name, expected in clip(graph)[frame].items():
            np.testing.assert_array_equal(found[name], expected, err_msg=f"frame {frame}: {name}")


@every_policy
@pytest.mark.parametrize("frame", [2, 7])
def test_a_bank_saved_and_restored_mid_clip_continues_bit_for_bit(
    graph_of: OpenPolicy, policy: str, frame: int
) -> None:
    graph = graph_of(policy)
    file = io.BytesIO()
    np.savez(file, **bank_before(graph, frame))  # type: ignore[arg-type]  # the stub's `allow_pickle`
    file.seek(0)
    state: dict[str, Array] = dict(np.load(file))
    for t in range(frame, FRAMES):
        outputs = graph.run(feeds_of(graph, t) | state)
        for name, expected in clip(graph)[t].items():
            np.testing.assert_array_equal(outputs[name], expected, err_msg=f"frame {t}: {name}")
        state = next_bank(outputs)
