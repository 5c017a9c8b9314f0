"""The text encoders by name: names and sizes of the released files, the position table, errors, the traced graph."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from samonnx.errors import SamonnxError
from samonnx.graph_session import GraphSession
from samonnx.models.text_encoders import TEXT_ENCODERS, build_language_backbone
from samonnx.pins import PinValue, apply_pins
from samonnx.programs.program import Component
from samonnx.trace import trace
from samonnx.weights import fill_seeded

TINY = ("mobileclip_s0_tiny", "mobileclip_s1_tiny", "mobileclip2_l_tiny")
RELEASED: dict[str, PinValue] = {"encoder.causal_masking": False, "encoder.attend_padding": True}
PREFIX = "detector.backbone.language_backbone."
LISTING = Path(__file__).parents[2] / "golden/efficientsam3_m0_9/state_dict.json"


def on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return build_language_backbone(name, context_length=32, hidden_dim=256)


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


def released_s1() -> dict[str, tuple[int, ...]]:
    listed = json.loads(LISTING.read_text())
    return {key.removeprefix(PREFIX): tuple(listed[key]["shape"]) for key in listed if key.startswith(PREFIX)}


def pinned(name: str, context_length: int, positions: int = 77, **changed: bool) -> nn.Module:
    module = build_language_backbone(name, context_length, hidden_dim=8, positions=positions)
    fill_seeded(module.eval().requires_grad_(False))
    apply_pins(module, {path: changed.get(path.rpartition(".")[2], value) for path, value in RELEASED.items()})
    return module


def dog(length: int) -> Tensor:
    return torch.tensor([[49406, 320, 1929, 49407] + [0] * (length - 4)])


def refusal(name: str, context_length: int, positions: int) -> str:
    with pytest.raises(SamonnxError) as caught:
        build_language_backbone(name, context_length, hidden_dim=8, positions=positions)
    return str(caught.value)


def test_mobileclip_s1_has_the_names_and_shapes_of_the_released_file() -> None:
    assert shapes_of(on_meta("mobileclip_s1")) == released_s1()


def test_mobileclip2_l_has_the_names_of_s1_and_is_half_as_wide_again() -> None:
    wider = {512: 768, 1536: 2304, 2048: 3072}
    expected = {key: tuple(wider.get(side, side) for side in shape) for key, shape in released_s1().items()}
    assert shapes_of(on_meta("mobileclip2_l")) == expected


def test_mobileclip_s0_has_four_attention_layers_between_its_first_and_its_last() -> None:
    def of_layers(shapes: dict[str, tuple[int, ...]], *indices: int) -> dict[str, tuple[int, ...]]:
        prefixes = tuple(f"encoder.transformer.{index}." for index in indices)
        return {key: shape for key, shape in shapes.items() if key.startswith(prefixes)}

    own, s1 = shapes_of(on_meta("mobileclip_s0")), released_s1()
    assert of_layers(own, 1, 2, 3, 4) == of_layers(s1, 1, 2, 3, 4)
    others = {key: shape for key, shape in own.items() if key not in of_layers(own, 0, 1, 2, 3, 4, 5)}
    assert others == {key: shape for key, shape in s1.items() if ".transformer." not in key}
    assert not of_layers(own, 6)


@pytest.mark.parametrize(
    ("name", "millions"), [("mobileclip_s0", 42.5), ("mobileclip_s1", 63.5), ("mobileclip2_l", 123.8)]
)
def test_the_encoders_have_the_published_number_of_parameters(name: str, millions: float) -> None:
    """Upstream's README cuts to a tenth of a million."""
    counted = sum(parameter.numel() for parameter in on_meta(name).parameters())
    assert 0 <= counted / 1e6 - millions < 0.1


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("length", [16, 32, 77])
def test_features_are_of_every_token_and_valid_are_those_that_are_not_zero(name: str, length: int) -> None:
    features, valid = pinned(name, length)(dog(length))
    assert features.shape == (1, length, 8)
    assert features.dtype == torch.float32
    assert valid.tolist() == [[True] * 4 + [False] * (length - 4)]


def test_a_zero_inside_a_text_is_not_valid_either() -> None:
    ids = dog(16)
    ids[0, 2] = 0
    assert pinned("mobileclip_s1_tiny", 16)(ids)[1].tolist() == [[True, True, False, True] + [False] * 12]


@pytest.mark.parametrize("name", TINY)
def test_rows_of_the_table_behind_the_context_and_the_projection_to_image_space_are_never_read(name: str) -> None:
    module = pinned(name, 16)
    expected, _ = module(dog(16))
    module.get_parameter("encoder.positional_embedding.pos_embed.pos_embed")[:, :, 16:] = torch.nan
    module.get_parameter("encoder.projection_layer").fill_(torch.nan)
    assert torch.equal(module(dog(16))[0], expected)


@settings(max_examples=10, deadline=None)
@given(st.integers(4, 31), st.data())
def test_a_table_that_was_cut_gives_the_features_of_the_whole_table(length: int, data: st.DataObject) -> None:
    rows = data.draw(st.integers(length, 32))
    whole = pinned("mobileclip_s1_tiny", length, positions=32)
    state = whole.state_dict()
    table = "encoder.positional_embedding.pos_embed.pos_embed"
    cut = build_language_backbone("mobileclip_s1_tiny", length, hidden_dim=8, positions=rows).eval()
    cut.load_state_dict({**state, table: state[table][:, :, :rows]})
    apply_pins(cut, RELEASED)
    assert torch.equal(cut(dog(length))[0], whole(dog(length))[0])


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        *((name, {}) for name in TINY),
        ("mobileclip_s1_tiny", {"causal_masking": True}),
        ("mobileclip_s1_tiny", {"attend_padding": False}),
    ],
)
def test_the_traced_graph_gives_the_features_of_the_module(name: str, changed: dict[str, bool]) -> None:
    module = pinned(name, 16, **changed)
    ids = dog(16)
    component = Component("encode_text", module, {"token_ids": torch.zeros_like(ids)}, ("features", "valid"))
    session = GraphSession(trace(component).model, threads=1)
    ids[0, 3:6] = torch.tensor([736, 17143, 49407])
    found = session.run({"token_ids": ids.numpy()})
    features, valid = module(ids)
    assert found["valid"].tolist() == valid.tolist()
    assert np.abs(found["features"] - features.numpy()).max() < 1e-5 * float(features.abs().max())


def test_an_unknown_name_lists_the_known_ones() -> None:
    assert refusal("mobileclip_s9", 32, 77) == (
        f"model.args.text_encoder: unknown text encoder 'mobileclip_s9'; known: {', '.join(TEXT_ENCODERS)}"
    )
    assert set(TINY) | {"mobileclip_s0", "mobileclip_s1", "mobileclip2_l"} <= set(TEXT_ENCODERS)


@pytest.mark.parametrize(("length", "rows"), [(78, 77), (33, 32), (0, 77)])
def test_a_context_that_the_table_does_not_hold_is_refused(length: int, rows: int) -> None:
    assert refusal("mobileclip_s1_tiny", length, rows) == (
        f"model.args.context_length: {length} found, 1…{rows} expected: the position table has {rows} rows "
        "(model.args.text_positions) and is not interpolated"
    )


def test_a_table_without_rows_is_refused() -> None:
    assert refusal("mobileclip_s1_tiny", 1, 0) == "model.args.text_positions: 0 found, at least 1 expected"


def test_texts_of_another_length_are_refused() -> None:
    with pytest.raises(SamonnxError) as caught:
        pinned("mobileclip_s1_tiny", 16)(dog(32))
    assert str(caught.value) == (
        "token_ids: 32 tokens a text found, 16 expected: cut or zero-pad the texts, or change model.args.context_length"
    )
