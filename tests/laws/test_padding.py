"""Law 2, padding is inert: what lies in an empty slot or an empty prompt place changes nothing; nor does adding empty
ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import Compile

from .scenario import Array, box, click, give, idle_feeds, next_bank, relative, run_graph

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
LAW = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def garbage(seed: int, value: float, shape: tuple[int, ...]) -> Array:
    """Normal numbers scaled by `value`, with `value` itself among them; finite."""
    random = np.random.default_rng(seed).standard_normal(shape).clip(-1, 1) * value
    array = random.astype(np.float32)
    array.flat[0] = value
    return array


@LAW
@given(filled=st.integers(0, 6), value=FINITE, seed=st.integers(0, 99))
def test_content_of_empty_slots_changes_no_output(compiled: Compile, filled: int, value: float, seed: int) -> None:
    session = compiled()
    bank: dict[str, Array] = {}
    if filled:
        bank = next_bank(run_graph(session, [{0: click(33.6, 44.8)}], filled)[-1])
    else:
        bank = {p.input: np.full(p.shape, p.empty, p.dtype) for p in session.manifest.bank}
    feeds = idle_feeds(session, filled, 0)
    if not filled:
        give(feeds, 0, click(33.6, 44.8), None)
        feeds["attend_memory"][:] = True  # an empty bank takes the no-memory path by itself
    clean = session.run(feeds | bank)
    dirty = {name: array.copy() for name, array in bank.items()}
    for kind in ("memory", "pointer"):
        empty = bank[f"bank.{kind}_frame"] == -1
        dirty[f"bank.{kind}"][empty] = garbage(seed, value, dirty[f"bank.{kind}"][empty].shape) if empty.any() else 0
        dirty[f"bank.{kind}_conditioning"][empty] = seed % 2 == 0
    found = session.run(feeds | dirty)
    for name, expected in clean.items():
        if name.startswith("next_bank."):
            rows = np.not_equal(found[f"next_bank.{name.split('.')[1].split('_')[0]}_frame"], -1)
            np.testing.assert_array_equal(found[name][rows], expected[rows], err_msg=name)
        else:
            np.testing.assert_array_equal(found[name], expected, err_msg=name)
        assert np.isfinite(expected.astype(np.float64)).all(), name


@LAW
@given(value=FINITE, seed=st.integers(0, 99), used=st.integers(0, 3), order=st.permutations(range(4)))
def test_content_and_position_of_empty_prompt_places_change_no_output(
    compiled: Compile, value: float, seed: int, used: int, order: list[int]
) -> None:
    session = compiled()
    bank = next_bank(run_graph(session, [{0: box(20.0, 30.0, 70.0, 80.0)}], 3)[-1])
    feeds = idle_feeds(session, 3, 0) | bank
    points = ((33.0, 44.0, 1), (50.0, 60.0, 0), (70.0, 20.0, 1))[:used]
    for place, (x, y, label) in enumerate(points):
        feeds["point_coords"][0, place], feeds["point_labels"][0, place] = (x, y), label
    clean = session.run(feeds)
    dirty: dict[str, Any] = {name: np.array(array) for name, array in feeds.items()}
    dirty["point_coords"][0, used:] = garbage(seed, value, (4 - used, 2))
    dirty["point_coords"], dirty["point_labels"] = dirty["point_coords"][:, order], dirty["point_labels"][:, order]
    for name in ("mask_prompt", "prev_logits"):
        dirty[name][:] = garbage(seed, value, dirty[name].shape)
    found = session.run(dirty)
    for name, expected in clean.items():
        assert np.isfinite(found[name].astype(np.float64)).all(), name
        assert relative(found[name], expected) <= 1e-5, name


def test_adding_empty_slots_and_places_changes_no_output(compiled: Compile) -> None:
    small, wide = compiled(), compiled("memory.conditioning_slots=4", "programs.track.points=7")
    prompts = {0: click(33.6, 44.8)}
    for a, b in zip(run_graph(small, [prompts], 9), run_graph(wide, [prompts], 9), strict=True):
        for name in ("low_res_masks", "masks", "ious", "iou", "object_score", "object_pointer", "mask_choice"):
            assert relative(b[name], a[name]) <= 1e-5, name


def test_an_empty_bank_takes_the_path_without_memory(compiled: Compile) -> None:
    session = compiled()
    feeds = idle_feeds(session, 0, 0) | {p.input: np.full(p.shape, p.empty, p.dtype) for p in session.manifest.bank}
    give(feeds, 0, click(33.6, 44.8), None)
    asked = session.run(feeds | {"attend_memory": np.array([True])})
    forbidden = session.run(feeds | {"attend_memory": np.array([False])})
    first = compiled(program="track@first").run(
        {port.name: feeds[port.name] for port in compiled(program="track@first").program.inputs}
    )
    for name, expected in forbidden.items():
        np.testing.assert_array_equal(asked[name], expected, err_msg=name)
        assert relative(first[name], expected) <= 1e-5, name
