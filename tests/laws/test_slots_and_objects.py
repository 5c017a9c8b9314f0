"""Laws 3, 4 and 5: objects are independent, calls are stateless, and frame indices rule, not the order of slots."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import Compile

from .scenario import Array, box, click, ellipse, give, idle_feeds, next_bank, relative, run_graph
from .test_equivalence import SMALL

LAW = settings(
    max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
RESULTS = ("low_res_masks", "masks", "ious", "iou", "object_score", "object_pointer", "mask_choice")


def test_objects_tracked_together_equal_each_tracked_alone(compiled: Compile) -> None:
    session = compiled(*SMALL[3])
    clips = [
        {0: click(33.6, 44.8), 4: click(40.0, 40.0, 0, correction=True)},
        {0: type(click(0, 0))(mask=ellipse(112)), 7: click(55.0, 55.0)},
        {3: box(20.0, 30.0, 70.0, 80.0)},
    ]
    together = run_graph(session, clips, 10)
    for row, own in enumerate(clips):
        alone = run_graph(session, [{}] * row + [own] + [{}] * (2 - row), 10)
        for t in range(min(own), 10):
            for name in RESULTS:
                assert relative(alone[t][name][row], together[t][name][row]) <= 1e-5, f"object {row}, frame {t}: {name}"


@LAW
@given(seed=st.integers(0, 10_000), filled=st.integers(1, 12))
def test_a_permutation_of_slots_changes_nothing(compiled: Compile, seed: int, filled: int) -> None:
    session = compiled(*SMALL[2])
    prompts = [{0: click(33.6, 44.8), 4: click(40.0, 40.0)}, {0: box(20.0, 30.0, 70.0, 80.0), 1: click(3.0, 4.0)}]
    bank = next_bank(run_graph(session, prompts, filled)[-1])
    feeds = idle_feeds(session, filled, 0)
    random = np.random.default_rng(seed)
    shuffled: dict[str, Array] = {}
    orders = {kind: random.permutation(bank[f"bank.{kind}_frame"].shape[1]) for kind in ("memory", "pointer")}
    for name, array in bank.items():
        shuffled[name] = np.ascontiguousarray(array[:, orders[name.split(".")[1].split("_")[0]]])
    straight, permuted = session.run(feeds | bank), session.run(feeds | shuffled)
    for name in RESULTS:
        assert relative(permuted[name], straight[name]) <= 1e-5, name
    for row in range(2):
        for kind in ("memory", "pointer"):
            contents = []
            for outputs in (straight, permuted):
                frames = outputs[f"next_bank.{kind}_frame"][row]
                order = np.argsort(frames)
                contents.append((frames[order], outputs[f"next_bank.{kind}_conditioning"][row][order]))
            np.testing.assert_array_equal(contents[0], contents[1])


def test_calls_are_stateless_in_any_order(compiled: Compile) -> None:
    session = compiled()
    banks = [next_bank(outputs) for outputs in run_graph(session, [{0: click(33.6, 44.8)}], 5)]
    feeds = [idle_feeds(session, t + 1, 5) | bank for t, bank in enumerate(banks)]
    forward = [session.run(f) for f in feeds]
    backward = [session.run(f) for f in reversed(feeds)][::-1]
    for one, other in zip(forward, backward, strict=True):
        for name, expected in one.items():
            np.testing.assert_array_equal(other[name], expected, err_msg=name)


def test_a_bank_saved_and_restored_mid_clip_continues_bit_for_bit(compiled: Compile) -> None:
    session = compiled()
    through = run_graph(session, [{0: click(33.6, 44.8)}], 8)
    saved = {
        name: np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape)
        for name, array in next_bank(through[3]).items()
    }
    state = saved
    for t in range(4, 8):
        outputs = session.run(idle_feeds(session, t, 8) | state)
        for name, expected in through[t].items():
            np.testing.assert_array_equal(outputs[name], expected, err_msg=f"frame {t}: {name}")
        state = next_bank(outputs)


def test_a_prompt_replaces_the_earlier_record_of_its_frame(compiled: Compile) -> None:
    session = compiled()
    bank = next_bank(run_graph(session, [{0: click(33.6, 44.8)}], 4)[-1])
    feeds = idle_feeds(session, 3, 0) | bank
    give(feeds, 0, click(50.0, 50.0, 0), np.zeros((32, 32), np.float32))
    frames = next_bank(dict(session.run(feeds)))["bank.memory_frame"][0]
    assert sorted(frames[frames >= 0]) == [0, 1, 2, 3]
