"""The formula of seeded weights and frames: frozen, because the golden tensors were computed with it."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samonnx.seeded import seeded_frame, seeded_state_dict, seeded_tensor

# One key for every branch of the formula.
SHAPES: dict[str, tuple[int, ...]] = {
    "a.weight": (4, 3, 5),
    "b.bias": (7,),
    "n.running_mean": (3,),
    "n.running_var": (9,),
    "n.weight": (5,),
    "t": (),
    "e": (1, 1, 8, 4),
    "x.bias": (3, 4),
    "z": (0,),
    "running_var": (4,),
}


def sha256(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()


@pytest.mark.parametrize(
    ("seed", "digest"),
    [
        (0, "823bd24ba2615b06221b29bd1b3ac447f2b07c7ede84942e8ff1dbc8658100cd"),
        (3, "57e98bada46d86f57e9986e00ce513cca1713916fb951bfd941238a64e831605"),
    ],
)
def test_every_branch_of_the_weight_formula_gives_the_bytes_of_the_oracle(seed: int, digest: str) -> None:
    filled = seeded_state_dict(SHAPES, seed)
    assert sha256(*(key.encode() + value.tobytes() for key, value in filled.items())) == digest


def test_a_named_weight_of_the_released_model_gives_the_bytes_of_the_oracle() -> None:
    filled = seeded_tensor("tracker.no_mem_embed", (1, 1, 256), seed=3)
    assert sha256(filled.tobytes()) == "fe5f6eeca0d6c3dedc71a264069703e5bfe316fd6d79559932b7228abe78223e"


@pytest.mark.parametrize(
    ("index", "seed", "digest"),
    [
        (0, 0, "136b16418b661857b3801a8dd83b14aad37c5840560d09383bcf3bbdfb463eb8"),
        (5, 0, "59c1f72e5d2d24b6847debb04477afa1bf1629e3ca7f2aec169a73f7942b22b9"),
        (10, 0, "8112d7e1ded01e631edbd421d9899989dee318ca0de1911c8652f5e7afccc337"),
        (0, 3, "2763e378c83c9de4d81e16fe123e31f6a9c605e20a50cadfe39218c8756e4b7b"),
        (5, 3, "59577901d58772d1452e78cc249b4c9f95cd31f282791b3116e360c5d53040c4"),
        (10, 3, "4110f89f71b8d3340bd18f4737a73ee962a2af48fb77459b0d216fc64888952b"),
    ],
)
def test_a_frame_has_the_bytes_of_the_oracle(index: int, seed: int, digest: str) -> None:
    assert sha256(seeded_frame(index, 56, seed).tobytes()) == digest


@given(st.text(max_size=20), st.lists(st.integers(0, 4), max_size=4), st.integers(0, 9))
def test_a_tensor_depends_on_name_shape_and_seed_alone(key: str, shape: list[int], seed: int) -> None:
    filled = seeded_tensor(key, tuple(shape), seed)
    assert filled.dtype == np.float32
    assert filled.shape == tuple(shape)
    assert filled.tobytes() == seeded_state_dict({"other": (3,), key: tuple(shape)}, seed)[key].tobytes()


def test_variances_are_positive_and_norm_weights_surround_one() -> None:
    assert seeded_tensor("n.running_var", (1000,)).min() >= 1.0
    assert abs(seeded_tensor("n.weight", (1000,)).mean() - 1.0) < 0.02


@pytest.mark.parametrize("index", [9, 10, 11])
def test_the_ellipse_is_hidden_in_frames_9_to_11(index: int) -> None:
    hidden = seeded_frame(index, 28)
    assert hidden.tobytes() == seeded_frame(9, 28).tobytes()
    assert hidden.tobytes() != seeded_frame(12, 28).tobytes()


def test_a_frame_is_an_image_of_the_size_asked_for_with_values_between_0_and_1() -> None:
    frame = seeded_frame(4, 33)
    assert frame.shape == (3, 33, 33)
    assert frame.dtype == np.float32
    assert frame.min() >= 0.0
    assert frame.max() <= 1.0
