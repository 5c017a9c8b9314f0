"""EfficientSAM3 under the names of the released checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
import torch

from samonnx.errors import SamonnxError
from samonnx.models.efficientsam3 import EfficientSAM3, build
from tests.tiny_model import ROOT, tiny_model

TRUNK = "detector.backbone.vision_backbone.trunk."

Entries = dict[str, tuple[tuple[int, ...], str]]


def on_meta(backbone: str) -> EfficientSAM3:
    with torch.device("meta"):
        return build(backbone)


def entries_of(model: EfficientSAM3) -> Entries:
    return {key: (tuple(t.shape), str(t.dtype).removeprefix("torch.")) for key, t in model.state_dict().items()}


@pytest.fixture(scope="module")
def full_size() -> EfficientSAM3:
    return on_meta("repvit_m0_9")


@pytest.fixture(scope="module")
def released() -> Entries:
    """Name → shape and dtype of the released video model."""
    listed: Mapping[str, Mapping[str, object]] = json.loads(
        (ROOT / "golden/efficientsam3_m0_9/state_dict.json").read_text()
    )
    entries: Entries = {}
    for key, entry in listed.items():
        shape = entry["shape"]
        assert isinstance(shape, list)
        entries[key] = (tuple(shape), str(entry["dtype"]))
    return entries


def test_every_weight_has_the_name_shape_and_dtype_that_the_released_file_gives_it_and_no_other_is_there(
    full_size: EfficientSAM3, released: Entries
) -> None:
    assert len(released) == 1608
    assert entries_of(full_size) == released


def test_another_size_of_the_trunk_changes_the_trunk_alone(full_size: EfficientSAM3) -> None:
    reference = entries_of(full_size)
    for backbone in ("repvit_m1_1", "repvit_m2_3"):
        own = entries_of(on_meta(backbone))
        trunk = f"{TRUNK}model.backbone."
        moved = {key for key in own.keys() | reference.keys() if own.get(key) != reference.get(key)}
        assert {key for key in moved if not key.startswith(trunk)} == {f"{TRUNK}model.head.0.weight"}


def test_the_components_of_the_report_cover_every_weight(full_size: EfficientSAM3) -> None:
    prefixes = [prefix for given in full_size.components.values() for prefix in given]
    assert all(any(key.startswith(prefix) for prefix in prefixes) for key in full_size.state_dict())


def test_the_model_comes_in_eval_mode(full_size: EfficientSAM3) -> None:
    assert not any(module.training for module in full_size.modules())


def test_tables_that_depend_on_sizes_only_are_not_weights() -> None:
    model = tiny_model()
    tables = {name for name, _ in model.named_buffers()} - set(model.state_dict())
    assert tables == {
        *(f"tracker.transformer.encoder.{name}" for name in ("position", "cosine", "sine")),
        *(f"detector.transformer.{name}.position" for name in ("encoder", "decoder")),
        "detector.geometry_encoder.position",
    }


def test_a_number_of_parts_below_one_is_refused() -> None:
    with pytest.raises(SamonnxError, match=r"model\.args\.queries: 0 found, at least 1 expected"):
        build("repvit_tiny", queries=0)
    with pytest.raises(SamonnxError, match=r"model\.args\.encoder_layers: 0 found, at least 1 expected"):
        build("repvit_tiny", encoder_layers=0)
    with pytest.raises(SamonnxError, match=r"model\.args\.decoder_layers: -1 found, at least 1 expected"):
        build("repvit_tiny", decoder_layers=-1)


@pytest.mark.parametrize("size", [1000, 1022, 14])
def test_an_image_size_that_does_not_fit_the_grid_is_refused_with_the_step(size: int) -> None:
    with pytest.raises(SamonnxError, match=rf"image_size {size}: expected a multiple of 28 .*an even grid"):
        build("repvit_tiny", image_size=size)


def test_a_hidden_width_that_cannot_be_cut_into_memory_tokens_is_refused() -> None:
    with pytest.raises(SamonnxError, match="hidden_dim 32 is not a multiple of memory_dim 12"):
        build("repvit_tiny", image_size=112, hidden_dim=32, memory_dim=12)
