"""Laws of XMem's bank, on the emitted graphs: padding is inert, slots are told apart by their frames, objects are
independent up to the soft aggregation that couples them, calls are stateless."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from samonnx.graph_session import Array, GraphSession
from samonnx.probed import probed
from samonnx.runtime.session import InputError, Session

from .conftest import OpenXMem
from .xmem_scenario import XMemGraphs, XMemRun, clip_frame, masks_at, sizes_of

FRAMES = 12
FIXTURE = settings(
    max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
WORKING = ("key", "shrinkage", "selection", "value", "use", "life", "frame")


@pytest.fixture(scope="module")
def clip(xmem_graphs: OpenXMem) -> tuple[XMemGraphs, list[dict[str, Array]]]:
    """The graphs, and what `track` was fed on each frame of a clip."""
    run, fed = XMemRun(xmem_graphs()), []
    for t in range(FRAMES):
        image, masks = clip_frame(t, sizes_of()), masks_at(t, sizes_of())
        fed.append({**run.inputs(image, masks), **run.bank})
        run.frame(image, masks)
    return run.graphs, fed


Clip = tuple[XMemGraphs, list[dict[str, Array]]]


def with_junk(bank: Mapping[str, Array], seed: int) -> dict[str, Array]:
    """Seeded numbers of any size in every place that is empty, and in rows without an object."""
    random, junk = np.random.default_rng(seed), dict(bank)

    def fill(name: str, empty: Array, axis: int = 0) -> None:
        array = junk[name].copy()
        there = (slice(None),) * axis + (empty,)
        array[there] = random.standard_normal(array[there].shape) * 10.0 ** random.integers(0, 30)
        junk[name] = array

    slots, places = bank["bank.working_frame"] < 0, np.arange(16) >= bank["bank.long_count"]
    absent = bank["bank.object_since"] < 0
    for name in ("key", "shrinkage", "selection", "use", "life"):
        fill(f"bank.working_{name}", slots)
    for name in ("key", "shrinkage", "use", "life"):
        fill(f"bank.long_{name}", places)
    for name, empty in (("working_value", slots), ("long_value", places)):
        fill(f"bank.{name}", empty, axis=1)
        fill(f"bank.{name}", absent)
    fill("bank.sensory", absent)
    junk["bank.long_frame"] = np.where(places, random.integers(-5, 99), bank["bank.long_frame"]).astype(np.int32)
    return junk


@FIXTURE
@given(t=st.integers(0, FRAMES - 1), seed=st.integers(0, 999))
def test_what_stands_in_empty_places_changes_no_bit(clip: Clip, t: int, seed: int) -> None:
    graphs, fed = clip
    expected = graphs.run("track", fed[t])
    found = graphs.run("track", with_junk(fed[t], seed))
    np.testing.assert_array_equal(found["probabilities"], expected["probabilities"])
    there = expected["next_bank.working_frame"] >= 0
    known = expected["next_bank.object_since"] >= 0
    np.testing.assert_array_equal(found["next_bank.working_frame"], expected["next_bank.working_frame"])
    np.testing.assert_array_equal(found["next_bank.sensory"][known], expected["next_bank.sensory"][known])
    for name in ("key", "shrinkage", "selection", "use", "life"):
        key = f"next_bank.working_{name}"
        np.testing.assert_array_equal(found[key][there], expected[key][there], err_msg=name)


@FIXTURE
@given(seed=st.integers(0, 999))
def test_junk_is_inert_in_consolidation_too(clip: Clip, seed: int) -> None:
    """Of a memory that is full, with long-term places left: only these hold junk."""
    graphs, fed = clip
    step = next(feeds for feeds in fed if feeds["bank.long_count"] and (feeds["bank.working_frame"] < 0).sum() == 1)
    full = {**step, "bank.working_frame": np.where(step["bank.working_frame"] < 0, 99, step["bank.working_frame"])}
    expected, found = graphs.run("consolidate", full), graphs.run("consolidate", with_junk(full, seed))
    count = int(expected["next_bank.long_count"])
    assert int(found["next_bank.long_count"]) == count
    for name in ("key", "shrinkage", "use", "life", "frame"):
        key = f"next_bank.long_{name}"
        np.testing.assert_array_equal(found[key][:count], expected[key][:count], err_msg=name)


@FIXTURE
@given(t=st.integers(1, FRAMES - 1), order=st.permutations(range(3)))
def test_a_permutation_of_slots_changes_nothing_but_rounding(clip: Clip, t: int, order: list[int]) -> None:
    graphs, fed = clip
    moved = dict(fed[t])
    for name in WORKING:
        key = f"bank.working_{name}"
        moved[key] = fed[t][key][:, order] if name == "value" else fed[t][key][order]
    expected, found = graphs.run("track", fed[t]), graphs.run("track", moved)
    np.testing.assert_allclose(found["probabilities"], expected["probabilities"], atol=1e-5)
    frames = [list(result["next_bank.working_frame"]) for result in (expected, found)]
    assert sorted(frames[0]) == sorted(frames[1])
    for place, frame in enumerate(frames[0]):
        if frame >= 0:
            here, there = (result["next_bank.working_use"] for result in (expected, found))
            np.testing.assert_allclose(there[frames[1].index(frame)], here[place], atol=1e-4)


def test_an_object_is_read_and_decoded_alone_as_together(clip: Clip) -> None:
    """Everything up to its logits; values are encoded with the others' masks, and aggregation couples, by design."""
    graphs, fed = clip
    file = graphs.folder / graphs.manifest.program("track").files["onnx"]
    opened = GraphSession(probed(ir.load(file), ["decode/logits"]), threads=1)
    feeds = fed[FRAMES - 1]
    assert (feeds["bank.object_since"] >= 0).all()
    together = opened.run(feeds)["decode/logits"]
    for alone in range(2):
        since = np.where(np.arange(2) == alone, feeds["bank.object_since"], -1).astype(np.int32)
        found = opened.run({**feeds, "bank.object_since": since})["decode/logits"]
        np.testing.assert_allclose(found[alone], together[alone], atol=1e-5)
        assert np.abs(found[1 - alone] - together[1 - alone]).max() > 1e-4


def test_the_same_call_gives_the_same_bits_in_any_order_and_after_a_save(clip: Clip, tmp_path: Path) -> None:
    graphs, fed = clip
    expected = [graphs.run("track", feeds) for feeds in fed]
    bank = {name: array for name, array in fed[7].items() if name.startswith("bank.")}
    np.savez(tmp_path / "bank.npz", allow_pickle=False, **bank)
    with np.load(tmp_path / "bank.npz") as saved:
        fed = [*fed[:7], {**fed[7], **saved}, *fed[8:]]
    for t in (7, 2, 11, 0, 7):
        found = graphs.run("track", fed[t])
        for name, array in expected[t].items():
            np.testing.assert_array_equal(found[name], array, err_msg=f"{name}, frame {t}")


def test_specialisations_give_what_the_general_graph_gives(clip: Clip) -> None:
    """Where they do not give a tensor, the general graph leaves it as it was."""
    graphs, fed = clip
    run = XMemRun(graphs, specialised=True)
    used = set()
    for t, feeds in enumerate(fed):
        name = run.program(feeds)
        used.add(name)
        expected, found = graphs.run("track", feeds), graphs.run(name, feeds)
        for output, array in expected.items():
            if output in found:
                np.testing.assert_allclose(found[output], array, atol=1e-6, err_msg=f"{name}, {output}, frame {t}")
            else:
                np.testing.assert_array_equal(array, feeds[output.removeprefix("next_")], err_msg=f"{output}, {t}")
    assert used == {"track@plain", "track@memory"}


def test_consolidation_inside_is_consolidation_after(clip: Clip) -> None:
    graphs, fed = clip
    consolidated = 0
    for t, feeds in enumerate(fed):
        after = {
            **feeds,
            **{f"bank.{name.removeprefix('next_bank.')}": x for name, x in graphs.run("track", feeds).items()},
        }
        consolidated += bool((after["bank.working_frame"] >= 0).all())
        expected = graphs.run("consolidate", after)
        found = graphs.run("track_and_consolidate", feeds)
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, atol=1e-6, err_msg=f"{name}, frame {t}")
    assert consolidated > 2


@pytest.mark.parametrize("shape", [(2, 44, 71), (3, 44, 70)], ids=["another size", "more objects than the bank holds"])
def test_masks_that_do_not_fit_are_refused_by_name(clip: Clip, shape: tuple[int, ...]) -> None:
    graphs, fed = clip
    session = Session(graphs.folder, program="track", target="onnx", threads=1)
    with pytest.raises(
        InputError, match=rf"masks: expected float32 \[2, 44, 70\], got float32 {re.escape(str([*shape]))}"
    ):
        session.run({**fed[0], "masks": np.zeros(shape, np.float32)})


def test_frames_before_the_first_mask_are_background_and_not_memorised(xmem_graphs: OpenXMem) -> None:
    run = XMemRun(xmem_graphs(), specialised=True)
    for t in range(5):
        found = run.frame(clip_frame(t, sizes_of()), {})
        np.testing.assert_array_equal(found[0], np.ones_like(found[0]))
        assert not found[1:].any()
    assert (run.bank["bank.working_frame"] == -1).all()
    assert run.used == {"track@plain", "track@memory"}
