"""The box filter against the same filter in NumPy, float64, with full 8×8 matrices."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from samonnx.graph_session import GraphSession
from samonnx.models import kalman_filter
from samonnx.programs.program import Component
from samonnx.trace import trace
from tests.models import numpy_samurai as numpy_reference

Float = npt.NDArray[np.float64]

PAIRS = np.kron(np.ones((2, 2)), np.eye(4)) > 0
"""bool [8, 8]: entries of a position and its own velocity."""

SIDE = 1024


def state_of_box(x0: int, y0: int, width: int, height: int) -> Float:
    box = [x0, y0, min(x0 + width, SIDE - 1), min(y0 + height, SIDE - 1)]
    return numpy_reference.state_of(box)


MEASURED = st.builds(
    state_of_box, *(st.integers(0, SIDE - 1) | st.sampled_from([0, 1, SIDE - 2, SIDE - 1]) for _ in range(4))
)


def moving(frames: int, random: np.random.Generator) -> Float:
    """A box of about 100 × 200 that wanders over the image."""
    x, y = (500 + np.cumsum(random.integers(-6, 7, frames)) for _ in range(2))
    w, h = random.integers(90, 110, frames), random.integers(180, 220, frames)
    return np.stack([numpy_reference.state_of(box) for box in np.stack((x - w, y - h, x + w, y + h), 1)])


def jumping(frames: int, random: np.random.Generator) -> Float:
    """Boxes without any connection, from one pixel to the whole image."""
    return np.stack([state_of_box(*random.integers(0, SIDE, 4).tolist()) for _ in range(frames)])


def vanishing(frames: int, random: np.random.Generator) -> Float:
    """Ten frames there, ten frames with an empty mask."""
    there = (np.arange(frames) // 10) % 2 == 0
    return np.where(there[:, None], moving(frames, random), [0.0, 0.0, 0.0, 1.0])


def breathing(frames: int, random: np.random.Generator) -> Float:
    """Forty frames of the whole image, forty frames of one pixel in its middle."""
    whole, pixel = state_of_box(0, 0, SIDE, SIDE), state_of_box(512, 512, 0, 0)
    return np.where(((np.arange(frames) // 40) % 2 == 0)[:, None], whole, pixel)


def tiny(frames: int, random: np.random.Generator) -> Float:
    """Boxes of one to three pixels' width and height at the border."""
    return np.stack([state_of_box(0, SIDE - 1 - int(h), int(w), int(h)) for w, h in random.integers(0, 3, (frames, 2))])


CLIPS = (moving, jumping, vanishing, breathing, tiny)


def filtered(measured: Float) -> list[tuple[Float, Float]]:
    """The NumPy filter's state after each frame."""
    state = numpy_reference.initiate(measured[0])
    states = [state]
    for one in measured[1:]:
        state = numpy_reference.update(*numpy_reference.predict(*state), one)
        states.append(state)
    return states


def tensor(values: Float) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))


def test_float32_stays_with_float64_over_two_thousand_frames() -> None:
    """One row a clip; largest error over the frames. Positions and covariance entry by entry; velocities, which go
    through zero, against the largest entry of the mean."""
    clips = np.stack([clip(2000, np.random.default_rng(5)) for clip in CLIPS])
    rows = tensor(clips)
    exact = [filtered(clip) for clip in clips]
    state = kalman_filter.initiate(rows[:, 0])
    worst = np.zeros((3, len(CLIPS)))
    for index in range(1, 2000):
        state = kalman_filter.update(*kalman_filter.predict(*state), rows[:, index])
        mean, covariance = (np.stack([one[index][part] for one in exact]) for part in (0, 1))
        off_mean, off = (np.abs(one.double().numpy() - two) for one, two in zip(state, (mean, covariance), strict=True))
        positions = off_mean[:, :4] / np.abs(mean[:, :4]).clip(1e-6)
        velocities = off_mean[:, 4:] / np.abs(mean).max(1, keepdims=True)
        entries = off[:, PAIRS] / np.abs(covariance)[:, PAIRS]
        worst = np.maximum(worst, [part.max(1) for part in (positions, velocities, entries)])
    assert worst[0].max() < 1e-4, worst
    assert worst[1].max() < 1e-5, worst
    assert worst[2].max() < 1e-4, worst


@given(measured=st.lists(MEASURED, min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_the_full_filter_never_leaves_the_pairs(measured: list[Float]) -> None:
    """What the block form rests on: NumPy's 8×8 products and 4×4 solve give exact zeros elsewhere."""
    for _, covariance in filtered(np.stack(measured)):
        assert not covariance[~PAIRS].any()


@given(measured=st.lists(MEASURED, min_size=2, max_size=12))
@settings(max_examples=60, deadline=None)
def test_every_state_is_finite_symmetric_and_positive(measured: list[Float]) -> None:
    rows = tensor(np.stack(measured))[:, None]
    state = kalman_filter.initiate(rows[0])
    for row in rows[1:]:
        predicted = kalman_filter.predict(*state)
        state = kalman_filter.update(*predicted, row)
        for mean, covariance in (predicted, state):
            assert mean.isfinite().all()
            assert covariance.isfinite().all()
            assert torch.equal(covariance, covariance.transpose(1, 2))
            assert (covariance.diagonal(dim1=1, dim2=2) >= 0).all()


def test_a_predicted_height_of_zero_gives_numbers() -> None:
    """The noise vanishes; so does the covariance, and the measurement is believed."""
    mean = torch.tensor([[100.0, 100.0, 0.5, 8.0, 0.0, 0.0, 0.0, -8.0]])
    covariance = kalman_filter.initiate(torch.tensor([[100.0, 100.0, 0.5, 8.0]]))[1]
    measured = torch.tensor([[3.0, 4.0, 1.0, 2.0]])
    found, spread = kalman_filter.update(*kalman_filter.predict(mean, covariance), measured)
    torch.testing.assert_close(found[:, [0, 1, 3]], measured[:, [0, 1, 3]])
    assert spread.isfinite().all()


def test_the_zeros_of_an_empty_bank_give_numbers() -> None:
    state = kalman_filter.predict(torch.zeros(2, 8), torch.zeros(2, 8, 8))
    for values in (*state, *kalman_filter.update(torch.zeros(2, 8), torch.zeros(2, 8, 8), torch.zeros(2, 4))):
        assert values.isfinite().all()


def test_entries_outside_the_pairs_are_neither_read_nor_kept() -> None:
    mean, covariance = kalman_filter.initiate(tensor(moving(3, np.random.default_rng(0))))
    dirty = torch.where(torch.from_numpy(PAIRS), covariance, 7.0)
    measured = mean[:, :4] + 1
    for step in (kalman_filter.predict, lambda m, c: kalman_filter.update(m, c, measured)):
        for clean, from_dirty in zip(step(mean, covariance), step(mean, dirty), strict=True):
            assert torch.equal(clean, from_dirty)


class Step(nn.Module):
    def forward(self, mean: Tensor, covariance: Tensor, measurement: Tensor) -> tuple[Tensor, ...]:
        predicted = kalman_filter.predict(mean, covariance)
        return *kalman_filter.initiate(measurement), *predicted, *kalman_filter.update(*predicted, measurement)


def test_the_graph_equals_the_module() -> None:
    random = np.random.default_rng(1)
    clip = np.concatenate((jumping(6, random), vanishing(14, random)))
    states = filtered(clip)
    ports = {
        "mean": tensor(np.stack([mean for mean, _ in states])),
        "covariance": tensor(np.stack([covariance for _, covariance in states])),
        "measurement": tensor(np.roll(clip, 1, 0)),
    }
    outputs = ("mean_0", "covariance_0", "mean_1", "covariance_1", "mean_2", "covariance_2")
    component = Component("kalman", Step().eval(), ports, outputs)
    session = GraphSession(trace(component).model, threads=1)
    found = session.run({name: port.numpy() for name, port in ports.items()})
    for name, value in zip(outputs, Step()(**ports), strict=True):
        np.testing.assert_allclose(found[name], value.numpy(), rtol=3e-6, atol=1e-5)
