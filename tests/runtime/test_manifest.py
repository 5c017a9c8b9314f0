from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from samonnx.runtime.manifest import BankPair, Manifest, ManifestError, PinInfo, PreprocessingInfo, VerificationInfo
from tests.runtime.hand_made_artifact import build


@pytest.fixture(scope="module")
def manifest(artifact: Path) -> Manifest:
    return Manifest.load(artifact)


def test_a_manifest_survives_json(manifest: Manifest) -> None:
    full = replace(
        manifest,
        pins=(PinInfo("tracker.a", True, "why"), PinInfo("tracker.b", "last", ""), PinInfo("tracker.c", 2, "")),
        tools={"onnx": "1.23.2"},
        verification=(VerificationInfo("track", "onnx", "masks", 1e-4),),
        notes=("the bank is float32",),
    )
    assert Manifest.from_json(full.to_json()) == full


def test_the_text_is_deterministic(manifest: Manifest) -> None:
    one = replace(manifest, tools={"a": "1", "b": "2"}).to_json()
    other = replace(manifest, tools={"b": "2", "a": "1"}).to_json()
    assert one == other
    assert one.endswith("}\n")
    assert list(json.loads(one)) == sorted(json.loads(one))


def test_a_pin_keeps_its_type(manifest: Manifest) -> None:
    pinned = replace(manifest, pins=(PinInfo("a", True), PinInfo("b", 1), PinInfo("c", 1.0)))
    again = Manifest.from_json(pinned.to_json())
    assert [type(pin.value) for pin in again.pins] == [bool, int, float]


def test_the_bank_digest_depends_on_recipe_and_weights(manifest: Manifest) -> None:
    digests = {
        manifest.bank_digest,
        replace(manifest, recipe_digest="0" * 64).bank_digest,
        replace(manifest, weights=replace(manifest.weights, digest="0" * 64)).bank_digest,
    }
    assert len(digests) == 3
    assert replace(manifest, notes=("other notes",)).bank_digest == manifest.bank_digest


def test_a_program_that_is_not_there_lists_those_that_are(manifest: Manifest) -> None:
    with pytest.raises(ManifestError, match="has no program 'segment'; it has: track, track@first"):
        manifest.program("segment")


def test_a_folder_that_does_not_exist_is_said(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"artifact folder .*nowhere does not exist; expected the output folder"):
        Manifest.load(tmp_path / "nowhere")


def test_a_file_in_place_of_the_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"")
    with pytest.raises(ManifestError, match=r"x\.onnx is a file, not a folder"):
        Manifest.load(tmp_path / "x.onnx")


def test_a_folder_without_a_manifest_is_said(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"has no manifest\.json, so it is not an artifact folder"):
        Manifest.load(tmp_path)


def test_text_that_is_not_json_is_said_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"format": 1,\n "recipe": }')
    with pytest.raises(ManifestError, match=r"manifest\.json is not JSON: line 2, column 12"):
        Manifest.load(tmp_path)


def test_bytes_that_are_not_text_are_said(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ManifestError, match="cannot be read"):
        Manifest.load(tmp_path)


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (("format",), 7, "has format 7; this version of samonnx reads format 1"),
        (("recipe",), 3, "recipe: expected a string, found 3"),
        (("recpie",), "x", "unknown field 'recpie'; known are: recipe, "),
        (("weights", "bytes"), "many", 'weights.bytes: expected a whole number, found "many"'),
        (("weights", "bytes"), True, "weights.bytes: expected a whole number, found true"),
        (("weights", "file"), "../secret", "file name '../secret': expected a plain name inside the artifact folder"),
        (("programs", 0, "inputs", 2, "shape"), 4, "programs[0].inputs[2].shape: expected a list, found 4"),
        (("programs", 0, "inputs", 0, "dtype"), "float16", "port 'image': expected a dtype of float32"),
        (("programs", 0, "inputs", 0, "shape"), [1, -3], "expected a shape without negative sides, found [1, -3]"),
        (("programs", 1, "name"), "track", "a name stands twice in ['track', 'track']"),
        (("programs", 0, "files"), [], "programs[0].files: expected an object, found []"),
        (("preprocessing", "mean"), [0.5], "preprocessing.mean: expected a list of 3, found 1 entries"),
        (("preprocessing", "std"), [0.5, 0.5, 0], "size and std must be positive"),
        (("preprocessing", "video_resize"), "lanczos", "bicubic-antialias, bilinear, found 'lanczos'"),
        (("memory",), [], "memory: expected an object or null, found []"),
        (("bank", 0, "shape"), [5, 3], "the first axis is the object, so expected 2 (memory.objects)"),
        (("bank", 0, "shape"), [2, 9], "'bank.memory' is float32 [2, 9], but program 'track' says float32 [2, 3, 4, "),
        (("bank", 0, "empty"), "none", "bank[0].empty: expected a number or a whole number or true or false"),
    ],
)
def test_each_wrong_value_is_named(artifact: Path, where: tuple[Any, ...], value: object, message: str) -> None:
    document = json.loads((artifact / "manifest.json").read_text())
    inner = document
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    with pytest.raises(ManifestError) as caught:
        Manifest.from_json(json.dumps(document), where="dist/x/manifest.json")
    assert message in str(caught.value)
    assert str(caught.value).startswith("dist/x/manifest.json")


@pytest.mark.parametrize("field", ["recipe", "weights", "programs", "bank", "preprocessing"])
def test_each_missing_field_is_named(artifact: Path, field: str) -> None:
    document = json.loads((artifact / "manifest.json").read_text())
    del document[field]
    with pytest.raises(ManifestError, match=f"field '{field}' is missing"):
        Manifest.from_json(json.dumps(document))


def test_a_bank_without_memory_is_refused(artifact: Path) -> None:
    document = json.loads((artifact / "manifest.json").read_text())
    document["memory"] = None
    with pytest.raises(ManifestError, match="a bank is listed, but field 'memory' is missing"):
        Manifest.from_json(json.dumps(document))


@pytest.mark.parametrize(
    ("ask", "what"),
    [(Manifest.tracking, "tracks"), (Manifest.detecting, "detects"), (Manifest.reading, "takes words")],
)
def test_what_an_artifact_lacks_is_said(manifest: Manifest, ask: Callable[[Manifest], object], what: str) -> None:
    bare = replace(manifest, bank=(), memory=None)
    with pytest.raises(ManifestError, match=f"has no program that {what}; it has: track, track@first"):
        ask(bare)


@pytest.fixture(scope="module")
def filled_manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return build(tmp_path_factory.mktemp("artifact") / "filled", filled=(1, 2))


@pytest.mark.parametrize(("filled", "name"), [(0, "track@1"), (1, "track@1"), (2, "track@2"), (3, "track")])
def test_the_program_for_so_many_memories_is_the_smallest_that_may_run(
    filled_manifest: Manifest, filled: int, name: str
) -> None:
    assert filled_manifest.for_filled("track", filled).name == name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"filled": 0}, "program 'track@1': filled is 0, expected 1 to 2: the bank has 3 slots"),
        ({"filled": 3}, "program 'track@1': filled is 3, expected 1 to 2: the bank has 3 slots"),
        ({"filled": "1"}, 'programs[2].filled: expected a whole number or null, found "1"'),
        ({"filled": 2}, "program 'track@1': filled is 2, and so it is for 'track@2'; expected one program for each"),
        ({"specialises": None}, "'track@1': filled is 1, but field 'specialises' does not name the program that it"),
        ({"inputs": []}, "filled is 1, so it stands in for 'track', but their inputs differ; expected the same"),
        ({"outputs": []}, "filled is 1, so it stands in for 'track', but their outputs differ; expected the same"),
    ],
)
def test_a_promise_about_filled_slots_that_cannot_hold_is_refused(
    filled_manifest: Manifest, change: dict[str, Any], message: str
) -> None:
    document = json.loads(filled_manifest.to_json())
    document["programs"][2] |= change
    with pytest.raises(ManifestError) as caught:
        Manifest.from_json(json.dumps(document))
    assert message in str(caught.value)


def test_filled_slots_without_a_bank_that_tells_them_are_refused(filled_manifest: Manifest) -> None:
    document = json.loads(filled_manifest.to_json())
    document["bank"] = [pair for pair in document["bank"] if pair["input"] != "bank.memory_frame"]
    with pytest.raises(ManifestError, match=r"filled is 1, but there is no bank tensor 'bank\.memory_frame' \[objects"):
        Manifest.from_json(json.dumps(document))


def test_a_manifest_without_a_format_is_refused() -> None:
    with pytest.raises(ManifestError, match="has no format; this version of samonnx reads format 1"):
        Manifest.from_json("{}")


def test_a_list_is_not_a_manifest() -> None:
    with pytest.raises(ManifestError, match=r"expected an object, found \[\]"):
        Manifest.from_json("[]")


def test_defaults_need_not_be_written(manifest: Manifest) -> None:
    document = json.loads(manifest.to_json())
    for field in ("pins", "tools", "verification", "notes"):
        del document[field]
    assert Manifest.from_json(json.dumps(document)) == manifest


def test_a_contradiction_is_refused_when_made_in_python_too(manifest: Manifest) -> None:
    with pytest.raises(ManifestError, match=r"bank tensor 'bank\.x'"):
        replace(manifest, bank=(BankPair("bank.x", "next_bank.x", "float32", (), 0.0),))
    with pytest.raises(ManifestError, match="preprocessing"):
        replace(manifest, preprocessing=PreprocessingInfo(0))


def test_building_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    build(tmp_path / "a")
    build(tmp_path / "b")
    assert (tmp_path / "a/manifest.json").read_bytes() == (tmp_path / "b/manifest.json").read_bytes()


def test_calls_of_a_foreign_model_have_a_bank_without_memory_and_no_preprocessing(manifest: Manifest) -> None:
    foreign = replace(manifest, preprocessing=None, memory=None)
    assert Manifest.from_json(foreign.to_json()) == foreign
    with pytest.raises(ManifestError, match=r"does not say how an image is prepared: its programs \(.*\) are calls"):
        foreign.seeing()
    with pytest.raises(ManifestError, match=r"has no program that tracks in samonnx's own form: its"):
        foreign.tracking()
    assert manifest.seeing() == manifest.preprocessing


def test_symbolic_dimensions_survive_json(manifest: Manifest) -> None:
    track = manifest.programs[0]
    ports = (replace(track.inputs[0], shape=("prompts", 3)), *track.inputs[1:])
    symbolic = replace(manifest, programs=(replace(track, inputs=ports), *manifest.programs[1:]))
    assert Manifest.from_json(symbolic.to_json()).programs[0].inputs[0].shape == ("prompts", 3)
    with pytest.raises(ManifestError, match="without negative sides, found"):
        replace(manifest, programs=(replace(track, inputs=(replace(ports[0], shape=("", 3)),)),))


def test_frames_of_two_sides_name_both_and_the_longer_one() -> None:
    assert PreprocessingInfo(8).frame_size == (8, 8)
    assert PreprocessingInfo(8, height=6, width=8).frame_size == (6, 8)
    assert PreprocessingInfo(8, height=6, width=8, fit="pad").frame_size == (8, 8)


@pytest.mark.parametrize(
    ("info", "message"),
    [
        (PreprocessingInfo(8, height=6), "height and width are 6 and None, expected both"),
        (PreprocessingInfo(9, height=6, width=8), r"the longer one equal to size \(9\)"),
        (PreprocessingInfo(8, fit="crop"), "expected one of stretch, pad, found 'crop'"),
    ],
)
def test_contradictions_in_the_preprocessing_are_said(
    manifest: Manifest, info: PreprocessingInfo, message: str
) -> None:
    with pytest.raises(ManifestError, match=message):
        replace(manifest, preprocessing=info)
