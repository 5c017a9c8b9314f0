"""Loading weights: all or nothing, with every problem named; filling by formula; the digest."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from torch import nn

from samonnx.seeded import seeded_tensor
from samonnx.weights import SEEDED_NOTE, WeightsError, fill_seeded, load_weights, read_checkpoint, weights_digest

COMPONENTS = {"image encoder": ("detector.backbone.",), "tracker": ("tracker.",)}

Tensors = dict[str, torch.Tensor]


class Model(nn.Module):
    """As small as can be, with all kinds of entries: matrix, vectors, float buffers, a counter."""

    def __init__(self) -> None:
        super().__init__()
        self.detector = nn.ModuleDict({"backbone": nn.ModuleDict({"norm": nn.BatchNorm2d(3)})})
        self.tracker = nn.ModuleDict({"linear": nn.Linear(4, 2)})
        self.tracker.register_buffer("table", torch.zeros(2, 2))


def good_tensors() -> Tensors:
    source = Model()
    fill_seeded(source, seed=1)
    return {key: value.clone() for key, value in source.state_dict().items()}


def copy_of_state(module: nn.Module) -> Tensors:
    return {key: value.clone() for key, value in module.state_dict().items()}


def without(tensors: Tensors, *keys: str) -> Tensors:
    return {key: value for key, value in tensors.items() if key not in keys}


def test_a_checkpoint_that_fits_is_loaded_and_counted_by_component() -> None:
    module, tensors = Model(), good_tensors()
    report = load_weights(module, tensors, COMPONENTS, file="m.pth")
    assert all(torch.equal(value, tensors[key]) for key, value in module.state_dict().items())
    assert [(c.name, len(c.matched), c.parameters) for c in report.components] == [
        ("image encoder", 5, 13),
        ("tracker", 3, 14),
    ]
    assert report.problems == 0
    assert report.source == "checkpoint"
    assert report.file == "m.pth"
    assert report.converted == ()
    assert report.digest == weights_digest(module)


def test_counters_are_not_missed_and_do_not_change_the_digest() -> None:
    with_counter, without_counter = Model(), Model()
    tensors = good_tensors()
    tensors["detector.backbone.norm.num_batches_tracked"] += 7
    first = load_weights(with_counter, tensors, COMPONENTS)
    second = load_weights(without_counter, without(tensors, "detector.backbone.norm.num_batches_tracked"), COMPONENTS)
    assert first.digest == second.digest
    assert second.problems == 0


def test_entries_outside_all_components_are_counted_and_left_alone() -> None:
    tensors = good_tensors() | {"detector.text.x": torch.ones(1), "optimizer": torch.full((2,), torch.nan)}
    report = load_weights(Model(), tensors, COMPONENTS)
    assert report.not_used == 2


def test_entries_known_never_to_be_read_are_reported_as_unused() -> None:
    tensors = good_tensors() | {"detector.backbone.convs.0.w": torch.ones(1)}
    report = load_weights(Model(), tensors, COMPONENTS, ignored_keys=("detector.backbone.convs.*",))
    assert report.components[0].unused == ("detector.backbone.convs.0.w",)


def test_a_key_that_the_module_has_is_loaded_even_if_an_ignore_glob_covers_it() -> None:
    module, tensors = Model(), good_tensors()
    load_weights(module, tensors, COMPONENTS, ignored_keys=("*",))
    assert torch.equal(module.state_dict()["tracker.table"], tensors["tracker.table"])


def test_the_longest_prefix_owns_a_key() -> None:
    components = {"rest": ("",), "linear": ("tracker.linear.",), "tracker": ("tracker.",)}
    report = load_weights(Model(), good_tensors(), components)
    assert [len(c.matched) for c in report.components] == [5, 2, 1]


def broken_in_every_way() -> Tensors:
    tensors = without(good_tensors(), "tracker.linear.bias")
    tensors["tracker.extra"] = torch.ones(1)
    tensors["tracker.linear.weight"] = torch.ones(2, 5)
    tensors["tracker.table"] = torch.ones(2, 2, dtype=torch.int32)
    tensors["detector.backbone.norm.running_var"][1] = torch.inf
    tensors["detector.backbone.norm.num_batches_tracked"] = torch.tensor([1])
    return tensors


def test_all_problems_are_listed_at_once_and_nothing_is_loaded() -> None:
    module = Model()
    before = copy_of_state(module)
    with pytest.raises(WeightsError) as caught:
        load_weights(module, broken_in_every_way(), COMPONENTS, file="m.pth")
    lines = str(caught.value).splitlines()
    assert lines[0] == "m.pth does not fit the model: 6 problems; nothing was loaded"
    assert lines[1:-1] == [
        "  image encoder",
        "    mis-shaped  detector.backbone.norm.num_batches_tracked: shape [1], expected []",
        "    non-finite  detector.backbone.norm.running_var: 1 of 3 values are not finite, the first is inf at [1]",
        "  tracker",
        "    missing     tracker.linear.bias",
        "    unexpected  tracker.extra",
        "    mis-shaped  tracker.linear.weight: shape [2, 5], expected [2, 4]",
        "    mis-shaped  tracker.table: dtype int32, expected float32",
    ]
    assert caught.value.report is not None
    assert caught.value.report.problems == 6
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def drop(tensors: Tensors) -> None:
    del tensors["tracker.table"]


def add(tensors: Tensors) -> None:
    tensors["tracker.x"] = torch.ones(1)


def reshape(tensors: Tensors) -> None:
    tensors["tracker.table"] = torch.ones(4)


def transpose_shape(tensors: Tensors) -> None:
    # The same number of values must not be taken for a fit.
    tensors["tracker.linear.weight"] = tensors["tracker.linear.weight"].reshape(4, 2)


def poison(tensors: Tensors) -> None:
    tensors["tracker.table"][1, 0] = torch.nan


@pytest.mark.parametrize("spoil", [drop, add, reshape, transpose_shape, poison])
def test_a_single_problem_leaves_the_module_untouched(spoil: Callable[[Tensors], None]) -> None:
    module, tensors = Model(), good_tensors()
    spoil(tensors)
    before = copy_of_state(module)
    with pytest.raises(WeightsError, match="1 problems; nothing was loaded"):
        load_weights(module, tensors, COMPONENTS)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


@given(st.integers(0, 7), st.sampled_from([torch.nan, torch.inf, -torch.inf]), st.sampled_from([1, 3]))
def test_a_non_finite_value_is_named_with_count_and_first_position(place: int, value: float, count: int) -> None:
    tensors = good_tensors()
    flat = tensors["tracker.linear.weight"].view(-1)
    flat[place : place + count] = value
    bad = min(count, 8 - place)
    with pytest.raises(WeightsError) as caught:
        load_weights(Model(), tensors, COMPONENTS)
    expected = f"{bad} of 8 values are not finite, the first is {value} at [{place // 4}, {place % 4}]"
    assert f"tracker.linear.weight: {expected}" in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_become_float32_and_the_report_says_so(dtype: torch.dtype) -> None:
    module = Model()
    tensors = {key: v.to(dtype) if v.is_floating_point() else v for key, v in good_tensors().items()}
    report = load_weights(module, tensors, COMPONENTS)
    assert report.converted == (f"{str(dtype).removeprefix('torch.')} → float32: 7 tensors",)
    state = module.state_dict()
    assert all(state[key].dtype == torch.float32 for key in state if state[key].is_floating_point())
    assert torch.equal(state["tracker.linear.weight"], tensors["tracker.linear.weight"].to(torch.float32))


def test_a_float64_value_that_overflows_float32_is_not_finite() -> None:
    tensors = good_tensors()
    tensors["tracker.table"] = torch.full((2, 2), 1e300, dtype=torch.float64)
    with pytest.raises(WeightsError, match=r"tracker.table: 4 of 4 values are not finite"):
        load_weights(Model(), tensors, COMPONENTS)


def test_a_weight_of_the_model_outside_all_components_is_an_error() -> None:
    with pytest.raises(WeightsError, match=r"3 weights of the model lie in no component \(image encoder\)"):
        load_weights(Model(), good_tensors(), {"image encoder": ("detector.",)})


def test_a_model_on_the_meta_device_is_an_error() -> None:
    with torch.device("meta"):
        module = Model()
    with pytest.raises(WeightsError, match="8 weights of the model are on the meta device"):
        fill_seeded(module)


def test_filling_covers_every_float_parameter_and_buffer_by_its_own_key() -> None:
    module = Model()
    report = fill_seeded(module, seed=5, components=COMPONENTS)
    for key, value in module.state_dict().items():
        if value.is_floating_point():
            assert value.numpy().tobytes() == seeded_tensor(key, tuple(value.shape), 5).tobytes()
    assert report.source == "seeded(seed=5)"
    assert report.notes == (SEEDED_NOTE,)
    assert [len(c.matched) for c in report.components] == [4, 3]


def test_a_rescaled_weight_is_multiplied_in_float32() -> None:
    module, key = Model(), "detector.backbone.norm.running_var"
    report = fill_seeded(module, seed=0, rescale={key: 2.0**30})
    assert torch.equal(module.state_dict()[key], torch.from_numpy(seeded_tensor(key, (3,), 0)) * 2.0**30)
    assert f"rescaled: {key} × 1.07374e+09" in report.notes


@pytest.mark.parametrize(
    ("rescale", "message"),
    [
        (
            {"tracker.linear.wieght": 2.0},
            "which is no floating-point weight of the model; close to it: tracker.linear.weig",
        ),
        ({"detector.backbone.norm.num_batches_tracked": 2.0}, "is no floating-point weight of the model"),
        ({"tracker.table": 1e300}, "tracker.table × 1e+300 leaves the range of float32"),
        ({"tracker.table": float("nan")}, "tracker.table × nan leaves the range of float32"),
    ],
)
def test_a_rescale_that_cannot_be_done_is_an_error_before_anything_is_filled(
    rescale: dict[str, float], message: str
) -> None:
    module = Model()
    before = copy_of_state(module)
    with pytest.raises(WeightsError) as caught:
        fill_seeded(module, rescale=rescale)
    assert message in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_saving_and_loading_a_filled_model_keeps_the_digest(tmp_path: Path) -> None:
    source, target, path = Model(), Model(), tmp_path / "m.pth"
    filled = fill_seeded(source, seed=2)
    torch.save({"model": source.state_dict()}, path)
    loaded = load_weights(target, read_checkpoint(path), COMPONENTS, file=path.name)
    assert loaded.digest == filled.digest
    assert filled.digest != fill_seeded(source, seed=3).digest


def test_one_changed_bit_changes_the_digest() -> None:
    module = Model()
    before = fill_seeded(module).digest
    with torch.no_grad():
        module.state_dict()["tracker.table"].view(torch.int32)[0, 0] ^= 1
    assert weights_digest(module) != before


def test_the_report_renders_as_a_table_with_notes() -> None:
    console = Console(width=140, file=io.StringIO(), record=True)
    console.print(fill_seeded(Model(), components=COMPONENTS).render())
    text = console.export_text()
    assert "Weights: seeded(seed=0)" in text
    assert "the numbers are real, the masks are noise" in text
    assert "image encoder" in text
