"""The bank's tensors under each memory policy: names, dtypes, shapes, what an empty bank holds."""

from __future__ import annotations

import pytest

from samonnx.models.bank_policies import MemoryPolicy, Recent, Samurai, Selection
from samonnx.models.tracker import TrackerSizes
from samonnx.programs.program import BankTensor, Port
from samonnx.programs.track_bank import BANK, bank_layout

SIZES = TrackerSizes(image_size=128, hidden_dim=32, memory_dim=8, ffn_dim=64, stride=16)
OBJECTS = 3

FRAMES = {
    "memory": ("float32", (3, 6, 8, 8, 8), 0.0),
    "memory_frame": ("int32", (3, 6), -1),
    "memory_conditioning": ("bool", (3, 6), False),
    "pointer": ("float32", (3, 8, 32), 0.0),
    "pointer_frame": ("int32", (3, 8), -1),
    "pointer_conditioning": ("bool", (3, 8), False),
}
MORE_PLACES = {"pointer": ("float32", (3, 9, 32), 0.0), "pointer_frame": ("int32", (3, 9), -1)}
KALMAN = {
    "kalman_mean": ("float32", (3, 8), 0.0),
    "kalman_covariance": ("float32", (3, 8, 8), 0.0),
    "stable_frames": ("int32", (3,), 0),
}
BANKS = [
    (Recent(2, 4, 7), FRAMES),
    (
        Selection(2, 4, 7),
        FRAMES
        | MORE_PLACES
        | {"pointer_conditioning": ("bool", (3, 9), False)}
        | {"memory_accepted": ("bool", (3, 6), False), "pointer_accepted": ("bool", (3, 9), False)},
    ),
    (Samurai(2, 4, 7), FRAMES | {"memory_accepted": ("bool", (3, 6), False)} | KALMAN),
]
NAMES = ["recent", "selection", "samurai"]


def ports_of(policy: MemoryPolicy) -> list[Port]:
    layout = bank_layout(policy)
    return layout.ports(layout.tensors, policy, SIZES, OBJECTS)


@pytest.mark.parametrize(("policy", "expected"), BANKS, ids=NAMES)
def test_a_policys_bank_has_these_tensors_in_this_order(
    policy: MemoryPolicy, expected: dict[str, tuple[str, tuple[int, ...], object]]
) -> None:
    tensors, ports = bank_layout(policy).tensors, ports_of(policy)
    found = [(t.name, (p.dtype, p.shape, t.empty)) for t, p in zip(tensors, ports, strict=True)]
    assert found == list(expected.items())
    kinds = {"float32": float, "int32": int, "bool": bool}
    assert all(type(t.empty) is kinds[p.dtype] for t, p in zip(tensors, ports, strict=True))


@pytest.mark.parametrize(("policy", "expected"), BANKS, ids=NAMES)
def test_it_enters_and_leaves_under_the_contracts_names_and_each_tensor_says_what_it_means(
    policy: MemoryPolicy, expected: dict[str, object]
) -> None:
    tensors, ports = bank_layout(policy).tensors, ports_of(policy)
    assert [p.name for p in ports] == [t.input for t in tensors] == [f"bank.{name}" for name in expected]
    assert [t.output for t in tensors] == [f"next_bank.{name}" for name in expected]
    assert all(port.meaning and port.range for port in ports)


@pytest.mark.parametrize(("policy", "expected"), BANKS, ids=NAMES)
def test_the_parts_of_a_layout_are_what_its_components_take(policy: MemoryPolicy, expected: object) -> None:
    layout = bank_layout(policy)
    assert layout.frames == BANK
    kept = {"memory_accepted": policy.accepts_memories, "pointer_accepted": policy.accepts_pointers}
    assert [t.name for t in layout.accepted] == [name for name, flag in kept.items() if flag]
    assert [t.name for t in layout.filter] == (list(KALMAN) if policy.chooses_by_motion else [])


def test_a_tensor_that_no_layout_has_is_not_given_a_port() -> None:
    with pytest.raises(KeyError):
        bank_layout(BANKS[0][0]).ports((BankTensor("momentum", 0.0),), BANKS[0][0], SIZES, OBJECTS)
