from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from samonnx.bench_inputs import full_bank, program_inputs, video_frame
from samonnx.runtime.manifest import BankPair, Manifest, PortInfo
from samonnx.runtime.session import Session, check_inputs
from tests.runtime.hand_made_artifact import build
from tests.runtime.hand_made_both import build as build_both


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifact") / "tracks"
    build(folder, filled=(1, 2))
    return folder


@pytest.fixture(scope="module")
def manifest(folder: Path) -> Manifest:
    return Manifest.load(folder)


def test_every_program_takes_its_inputs_and_they_are_finite(manifest: Manifest, tmp_path: Path) -> None:
    for made in (manifest, build_both(tmp_path / "both")):
        for program in made.programs:
            inputs = program_inputs(made, program)
            check_inputs(program, inputs)
            for name, array in inputs.items():
                assert np.isfinite(array).all(), name


def test_the_inputs_are_the_same_every_time(manifest: Manifest) -> None:
    first, second = (program_inputs(manifest, manifest.program("track")) for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_track_gets_a_full_bank_and_no_prompt(manifest: Manifest) -> None:
    inputs = program_inputs(manifest, manifest.program("track"))
    np.testing.assert_array_equal(inputs["bank.memory_frame"], [[0, 1, 2]] * 2)
    np.testing.assert_array_equal(inputs["bank.pointer_frame"], [[0, 1, 2]] * 2)
    np.testing.assert_array_equal(inputs["bank.memory_conditioning"], [[True, False, False]] * 2)
    assert inputs["frame_index"] == 3
    assert np.all(inputs["bank.memory"].std(axis=(2, 3, 4)) > 0.1)
    assert inputs["attend_memory"].all()
    assert (inputs["point_labels"] == -1).all()
    assert not inputs["mask_prompt_valid"].any()
    assert not inputs["prev_logits_valid"].any()


@pytest.mark.parametrize("filled", [1, 2])
def test_track_k_gets_k_filled_slots(manifest: Manifest, filled: int) -> None:
    inputs = program_inputs(manifest, manifest.program(f"track@{filled}"))
    np.testing.assert_array_equal(np.greater_equal(inputs["bank.memory_frame"], 0).sum(axis=1), [filled] * 2)
    assert (inputs["bank.memory_frame"][:, filled:] == -1).all()
    assert (inputs["bank.memory"][:, filled:] == 0).all()
    assert inputs["frame_index"] == filled


def test_track_first_gets_a_click_inside_the_image(manifest: Manifest) -> None:
    inputs = program_inputs(manifest, manifest.program("track@first"))
    assert (inputs["point_labels"] == [1, -1, -1, -1]).all()
    np.testing.assert_array_equal(inputs["point_coords"][:, 0], [[14, 14]] * 2)
    assert inputs["frame_index"] == 0


def test_words_are_between_start_and_end_and_stay_in_their_range(tmp_path: Path) -> None:
    made = build_both(tmp_path / "both")
    tokens = program_inputs(made, made.program("segment"))["token_ids"][0]
    assert (tokens[0], tokens[4]) == (49406, 49407)
    assert ((tokens[1:4] > 0) & (tokens[1:4] < 49406)).all()
    assert (tokens[5:] == 0).all()
    small = PortInfo("token_ids", "int64", (1, 4), range="0 … 99")
    program = replace(made.program("encode_text"), inputs=(small,))
    assert np.less_equal(program_inputs(made, program)["token_ids"], 99).all()
    valid = program_inputs(made, made.program("ground"))["text_valid"]
    assert valid.sum() == 5
    assert valid[0, :5].all()


def test_a_port_of_an_unknown_name_is_kept_in_its_range(manifest: Manifest) -> None:
    ports = (
        PortInfo("gain", "float32", (100,), range="2 … 3"),
        PortInfo("offset", "float32", (100,)),
        PortInfo("depth", "int32", (), range="4 … 9"),
        PortInfo("far", "int32", (), range="0 … 2^29"),
        PortInfo("flag", "bool", (2,)),
    )
    inputs = program_inputs(manifest, replace(manifest.program("track"), inputs=ports))
    assert np.all(np.abs(inputs["gain"].astype(np.float32) - 2.5) <= 0.5)
    assert inputs["offset"].std() > 0.5
    assert (int(inputs["depth"]), int(inputs["far"])) == (4, 0)
    assert not inputs["flag"].any()


def test_scores_of_slots_are_such_as_no_policy_passes_over_and_a_motion_state_is_a_new_objects(
    manifest: Manifest,
) -> None:
    more = (
        BankPair("bank.memory_score", "next_bank.memory_score", "float32", (2, 3), -1.0),
        BankPair("bank.memory_accepted", "next_bank.memory_accepted", "bool", (2, 3), False),
        BankPair("bank.kalman_mean", "next_bank.kalman_mean", "float32", (2, 8), 0.0),
    )
    known = replace(manifest, bank=(*manifest.bank, *more))
    ports = tuple(PortInfo(pair.input, pair.dtype, pair.shape) for pair in known.bank)
    for filled, program in ((3, "track"), (2, "track@2")):
        inputs = program_inputs(known, replace(known.program(program), inputs=ports))
        score = [1.0] * filled + [-1.0] * (3 - filled)
        np.testing.assert_array_equal(inputs["bank.memory_score"], [score] * 2)
        np.testing.assert_array_equal(inputs["bank.memory_accepted"], [[s > 0 for s in score]] * 2)
        assert not inputs["bank.kalman_mean"].any()


def test_the_trackers_bank_is_full_for_every_object_and_belongs_to_the_artifact(manifest: Manifest) -> None:
    bank = full_bank(manifest, 5).checked(manifest)
    assert bank.objects == (1, 2, 3, 4, 5)
    assert bank.frames() == ((0, 1, 2),) * 5
    assert bank.next_frame == 3


def test_more_conditioning_slots_hold_the_first_frames(manifest: Manifest) -> None:
    assert manifest.memory is not None
    known = replace(manifest, memory=replace(manifest.memory, conditioning_slots=2))
    inputs = program_inputs(known, known.program("track"))
    np.testing.assert_array_equal(inputs["bank.memory_frame"][0], [0, 1, 2])
    np.testing.assert_array_equal(inputs["bank.memory_conditioning"][0], [True, True, False])


def test_the_made_up_inputs_run(folder: Path) -> None:
    for name in ("track", "track@1", "track@first"):
        session = Session(folder, name, threads=1)
        outputs = session.run(program_inputs(session.manifest, session.program))
        assert np.isfinite(outputs["low_res_masks"]).all()


def test_a_frame_has_the_size_that_is_asked_for() -> None:
    frame = video_frame(40, 23)
    assert frame.shape == (23, 40, 3)
    assert frame.dtype == np.uint8
    assert frame.std() > 20
