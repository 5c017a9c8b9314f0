"""XMem: the released names, widths read from shapes, checkpoints of single-object training, objects apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from samonnx.errors import SamonnxError
from samonnx.models.xmem import STRIDE, XMem, XMemWidths, build, widen_single_object
from tests.models.xmem_tiny import box, frame, tiny

LISTING = json.loads((Path(__file__).parents[2] / "golden/xmem/state_dict.json").read_text())
SHAPES = {key: tuple(entry["shape"]) for key, entry in LISTING.items()}


def test_every_weight_has_the_name_shape_and_dtype_of_the_released_file_and_no_other_is_there() -> None:
    with torch.device("meta"):
        state = build().state_dict()
    found = {key: [list(x.shape), str(x.dtype).removeprefix("torch.")] for key, x in state.items()}
    assert found == {key: [entry["shape"], entry["dtype"]] for key, entry in LISTING.items()}
    assert len(found) == 412


@pytest.mark.parametrize("sensory", [0, 5])
def test_widths_are_read_from_shapes(sensory: int) -> None:
    assert XMemWidths.of_shapes(SHAPES) == XMemWidths()
    widths = XMemWidths(3, 16, sensory, 4, (1, 2, 3), (2, 1, 4))
    with torch.device("meta"):
        shapes = {key: tuple(x.shape) for key, x in XMem(widths).state_dict().items()}
    assert XMemWidths.of_shapes(shapes) == widths


def test_a_file_of_something_else_is_refused() -> None:
    with pytest.raises(
        SamonnxError, match=r"'key_proj\.key_proj\.weight' is not among the 1 weights, so this is no XMem"
    ):
        XMemWidths.of_shapes({"trunk.weight": (3, 3)})


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"value_dim": 8, "trunk_dim": 1}, r"value 8 \(at least 16\), trunk 1 \(at least 2\)"),
        ({"hidden_dim": -1}, r"sensory -1 \(at least 0\)"),
        ({"key_blocks": [3, 4]}, r"key_blocks \[3, 4\] \(three numbers, at least 1 each\)"),
        ({"value_blocks": [0, 1, 1]}, r"value_blocks \[0, 1, 1\] \(three numbers"),
    ],
)
def test_widths_that_cannot_be_are_refused(args: dict[str, int], message: str) -> None:
    with pytest.raises(SamonnxError, match=message):
        build(**args)  # type: ignore[arg-type]  # a recipe's arguments


def test_the_components_of_the_report_own_every_weight_and_each_has_some() -> None:
    prefixes = [prefix for group in XMem.components.values() for prefix in group]
    owners = [[prefix for prefix in prefixes if key.startswith(prefix)] for key in LISTING]
    assert all(len(owner) == 1 for owner in owners)
    assert {owner[0] for owner in owners} == set(prefixes)


def test_the_model_comes_in_eval_mode() -> None:
    assert not any(module.training for module in build(4, 16, 3, 2).modules())


def test_a_checkpoint_of_single_object_training_gets_a_zero_channel_for_the_others() -> None:
    key = "value_encoder.conv1.weight"
    state = tiny().state_dict()
    single = state | {key: state[key][:, :4]}
    widened = widen_single_object(single)
    assert widened.keys() == state.keys()
    assert torch.equal(widened[key][:, :4], state[key][:, :4])
    assert not widened[key][:, 4].any()
    assert widen_single_object(state)[key] is state[key]
    assert single[key].shape[1] == 4


def test_a_frame_gives_key_shrinkage_and_selection_on_a_sixteenth_of_its_grid() -> None:
    features = tiny().encode_key(frame(0, 48, 32)[None])
    assert [tuple(x.shape) for x in features] == [
        *((1, 4, 3, 2), (1, 1, 3, 2), (1, 4, 3, 2)),
        *((1, 32, 3, 2), (1, 16, 6, 4), (1, 8, 12, 8)),
    ]
    assert STRIDE == 16
    assert bool((features.shrinkage >= 1).all())
    assert bool(((features.selection > 0) & (features.selection < 1)).all())


@pytest.mark.parametrize("sensory", [0, 3])
def test_objects_are_decoded_apart(sensory: int) -> None:
    model = tiny(sensory=sensory)
    features = model.encode_key(frame(0, 48, 32)[None])
    readout, state = (torch.randn(3, c, 3, 2, dtype=torch.float64) for c in (16, sensory))
    logits, updated = model.decode(features, readout, state)
    assert logits.shape == (3, 48, 32)
    assert updated.shape == state.shape
    for o in range(3):
        alone = model.decode(features, readout[o : o + 1], state[o : o + 1])
        torch.testing.assert_close(alone, (logits[o : o + 1], updated[o : o + 1]))


def test_a_value_depends_on_the_other_objects_only_through_the_sum_of_their_masks() -> None:
    model = tiny()
    image = frame(0, 48, 32)[None]
    f16 = model.encode_key(image).f16
    a, b = box(48, 32, 4, 4, 16), box(48, 32, 24, 8, 12)
    state = torch.zeros(3, 3, 3, 2, dtype=torch.float64)
    three, _ = model.encode_value(image, f16, state, torch.stack([a, b / 2, b / 2]))
    two, _ = model.encode_value(image, f16, state[:2], torch.stack([a, b]))
    torch.testing.assert_close(three[0], two[0])
    alone, _ = model.encode_value(image, f16, state[:1], a[None])
    assert (alone[0] - two[0]).abs().max() > 1e-3
