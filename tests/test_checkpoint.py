"""Reading checkpoint files: good ones in all their wrappings, and every kind of bad one."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from samonnx.checkpoint import CheckpointError, normalised_names, read_checkpoint

TENSORS = {"tracker.a": torch.arange(6.0).reshape(2, 3), "detector.b": torch.ones(4)}


class Payload:
    """A pickle that creates a file when it is loaded without restrictions."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


class EvalPayload(Payload):
    def __reduce__(self) -> tuple[object, ...]:
        return eval, (f"open({str(self.path)!r}, 'w')",)


def message_of(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    return str(caught.value)


@pytest.mark.parametrize("suffix", [".pth", ".pt"])
@pytest.mark.parametrize("is_zip", [True, False])
def test_both_formats_of_torch_are_read(tmp_path: Path, suffix: str, is_zip: bool) -> None:
    path = tmp_path / f"weights{suffix}"
    torch.save(TENSORS, path, _use_new_zipfile_serialization=is_zip)
    assert_same(read_checkpoint(path), TENSORS)


def test_safetensors_are_read(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(TENSORS, path)
    assert_same(read_checkpoint(path), TENSORS)


@pytest.mark.parametrize(
    "wrapped",
    [
        {"model": TENSORS, "epoch": 3},
        {"state_dict": TENSORS, "optimizer": {"lr": 1e-3}},
        {"state_dict": {"model": TENSORS}, "epoch": 3},
        {"model": {"model_state_dict": {"state_dict": TENSORS}}},
    ],
)
def test_wrappers_are_taken_off_also_when_nested(tmp_path: Path, wrapped: dict[str, object]) -> None:
    path = tmp_path / "weights.pth"
    torch.save(wrapped, path)
    assert_same(read_checkpoint(path), TENSORS)


@pytest.mark.parametrize(
    ("found", "normalised"),
    [
        ("module.tracker.a", "tracker.a"),
        ("module.module.tracker.a", "tracker.a"),
        ("tracker.module.a", "tracker.module.a"),
        ("detector.backbone.trunk.student_trunk.model.x", "detector.backbone.trunk.model.x"),
        ("student_trunk.detector.x", "detector.x"),
        ("detector.my_student_trunk.x", "detector.my_student_trunk.x"),
        ("inst_interactive_predictor.model.mask.x", "tracker.mask.x"),
        ("detector.inst_interactive_predictor.model.mask.x", "tracker.mask.x"),
        ("backbone.x", "detector.backbone.x"),
        ("image_encoder.x", "image_encoder.x"),
    ],
)
def test_a_name_is_normalised(found: str, normalised: str) -> None:
    assert normalised_names((found,)) == {found: normalised}


def test_names_of_the_image_model_become_those_of_the_video_model() -> None:
    names = normalised_names(("backbone.x", "transformer.y", "inst_interactive_predictor.model.z"))
    assert list(names.values()) == ["detector.backbone.x", "detector.transformer.y", "tracker.z"]


def test_a_file_that_has_the_full_names_gets_no_second_prefix() -> None:
    names = ("detector.backbone.x", "tracker.y", "backbone.z")
    assert normalised_names(names) == {name: name for name in names}


@given(st.sets(st.text("abt.", max_size=8) | st.sampled_from(["module.backbone.x", "tracker.y", "student_trunk.z"])))
def test_normalising_twice_is_normalising_once(names: set[str]) -> None:
    once = normalised_names(tuple(names))
    again = normalised_names(tuple(once.values()))
    assert all(again[name] == name for name in once.values())


def test_two_entries_that_get_the_same_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"tracker.a": torch.ones(1), "module.tracker.a": torch.zeros(1)}, path)
    assert "tracker.a and module.tracker.a → tracker.a" in message_of(path)


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    assert "does not exist" in message_of(tmp_path / "nothing.pth")
    (tmp_path / "folder.pth").mkdir()
    assert "is a folder, not a file" in message_of(tmp_path / "folder.pth")


@pytest.mark.parametrize(("name", "found"), [("weights.ckpt", "'.ckpt'"), ("weights", "no suffix")])
def test_another_suffix_is_refused(tmp_path: Path, name: str, found: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    assert f"a checkpoint ends in .pth, .pt, .safetensors, found {found}" in message_of(tmp_path / name)


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("part", [0.0, 0.01, 0.1, 0.5, 0.9, 0.99])
def test_a_cut_off_torch_file_is_an_error(tmp_path: Path, is_zip: bool, part: float) -> None:
    path = tmp_path / "weights.pth"
    torch.save({f"tracker.{i}": torch.ones(100) for i in range(5)}, path, _use_new_zipfile_serialization=is_zip)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    assert "damaged" in message_of(path)


@pytest.mark.parametrize("part", [0.0, 0.01, 0.1, 0.5, 0.99])
def test_a_cut_off_safetensors_file_is_an_error(tmp_path: Path, part: float) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(TENSORS, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    assert "damaged or cut off" in message_of(path)


def test_a_torch_file_with_a_damaged_pickle_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(TENSORS, path)
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + bytes(100) + whole[200:])
    assert "damaged" in message_of(path)


def test_a_file_of_something_else_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(b"<html>404 Not Found</html>" * 20)
    assert "damaged" in message_of(path)


@pytest.mark.parametrize("payload_class", [Payload, EvalPayload])
@pytest.mark.parametrize("is_zip", [True, False])
def test_a_pickle_with_code_is_refused_and_not_executed(
    tmp_path: Path, is_zip: bool, payload_class: type[Payload]
) -> None:
    path, trace = tmp_path / "weights.pth", tmp_path / "executed"
    torch.save({"tracker.a": payload_class(trace)}, path, _use_new_zipfile_serialization=is_zip)
    message = message_of(path)
    assert "refused" in message
    assert "which is code, not weights" in message
    assert not trace.exists()
    # The payload is a live one: an unrestricted loader would have run it.
    torch.load(path, weights_only=False)  # noqa: TID251
    assert trace.exists()


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_bare_pickle_with_code_is_refused_and_not_executed(tmp_path: Path, protocol: int) -> None:
    path, trace = tmp_path / "weights.pt", tmp_path / "executed"
    path.write_bytes(pickle.dumps({"tracker.a": Payload(trace)}, protocol=protocol))
    assert "refused" in message_of(path)
    assert not trace.exists()


def test_a_pickled_module_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(torch.nn.Linear(2, 2), path)
    assert "wants to call `torch.nn.modules.linear.Linear`" in message_of(path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (torch.ones(3), "the file holds a Tensor, expected a mapping of names to tensors"),
        ([torch.ones(3)], "the file holds list"),
        ({}, "holds no tensors at all"),
        ({"model": {}}, "holds no tensors at all"),
        ({"a": torch.ones(1), "epoch": 3}, "found 1 other entries: 'epoch': int 3"),
        ({1: torch.ones(1)}, "found 1 other entries: 1: a Tensor"),
        ({"a": torch.ones(2).to_sparse()}, "'a': a tensor that is not dense"),
        (
            {"model": {"a": torch.ones(1)}, "state_dict": {"a": torch.ones(1)}},
            "holds several state dicts (model, state",
        ),
        ({"model": {"model": {"model": {"model": {"model": {"model": {}}}}}}}, "more than 4 wrappers in each other"),
    ],
)
def test_anything_but_a_flat_mapping_of_tensors_is_an_error(tmp_path: Path, content: object, expected: str) -> None:
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    assert expected in message_of(path)


def assert_same(found: object, expected: dict[str, torch.Tensor]) -> None:
    assert isinstance(found, dict) or hasattr(found, "items")
    items = dict(found.items())
    assert set(items) == set(expected)
    assert all(torch.equal(items[key], expected[key]) for key in expected)
