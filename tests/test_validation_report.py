from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from samonnx.validation import FrameFigures, MotionFigures, Validation
from samonnx.validation_plot import plot_png
from samonnx.validation_report import ROWS, print_table, shown_frames, verdict


def frame(index: int, **changes: Any) -> FrameFigures:
    fine = FrameFigures(
        frame=index,
        graph="track@first" if index == 0 else "track",
        prompted=index == 0,
        logit_error=1.234e-5,
        relative_error=1.234e-6,
        mask_iou=0.99999,
        box_iou=1.0,
        pixels=(400, 401),
        object_score=-12.5,
        object_score_error=1.234e-4,
        iou_error=1.234e-6,
        mask_choice=(2, 2),
        motion=MotionFigures((3, 3), (15, 15), 1.234e-6),
        encoder_error=1.234e-6,
    )
    return replace(fine, **changes)


def validation(*frames: FrameFigures, **changes: Any) -> Validation:
    made = Validation(
        recipe="samurai_hiera_b+",
        recipe_digest="0" * 64,
        weights_source="seeded(seed=0)",
        weights_digest="1" * 64,
        target="ort-cpu",
        providers=("cpu",),
        clip="synthetic",
        width=1024,
        height=1024,
        num_frames=len(frames),
        from_reference=False,
        maps="graph",
        max_error=1e-3,
        min_iou=0.99,
        frames=frames,
        passed=not any(one.problems(1e-3, 0.99) for one in frames),
    )
    return replace(made, **changes)


WRONG = frame(
    1,
    logit_error=12345.0,
    relative_error=1.5,
    mask_iou=0.25,
    mask_choice=(-1, 2),
    motion=MotionFigures((3, 3), (9, 15), 0.5),
)


def table(made: Validation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    monkeypatch.setenv("COLUMNS", "80")
    print_table(made)
    return capsys.readouterr().out.splitlines()


def test_the_widest_table_fits_into_80_columns_with_nothing_cut_off(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = table(
        validation(frame(0), WRONG, frame(2, motion=MotionFigures((1, 3), (1, 15), 0.1))), monkeypatch, capsys
    )
    assert not [line for line in lines if "…" in line]
    assert all(len(line) <= 80 for line in lines[:9])
    rows = [line.split() for line in lines if line.strip()[:1].isdigit()]
    fine = ["1.2e-5", "1.2e-6", "0.9999", "1", "1.2e-4", "1.2e-6", "2"]
    assert rows[0] == ["0*", "@first", *fine, "3", "1.2e-6", "1.2e-6"]
    assert rows[1] == [
        "1",
        "track",
        "1.2e+4",
        "1.5",
        "0.25",
        "1",
        "1.2e-4",
        "1.2e-6",
        "-1≠2",
        "3:9≠15",
        "0.5",
        "1.2e-6",
    ]
    assert rows[2] == ["2", "track", *fine, "1≠3", "0.1", "1.2e-6"]
    assert "a≠b: the graph's and the reference's" in lines


def test_columns_without_meaning_are_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = table(validation(frame(0, motion=None), maps="own"), monkeypatch, capsys)
    assert not [line for line in lines if "phase" in line or "filter" in line or "maps" in line or "≠" in line]


def test_where_nobody_sees_the_object_the_table_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = "\n".join(table(validation(frame(0), frame(1, pixels=(0, 0), mask_iou=1.0)), monkeypatch, capsys))
    assert "empty: no object on either side, on 1 of 2 frames; logits say little there" in out


def test_a_long_clip_shows_the_frames_that_fail_and_the_worst_in_their_order() -> None:
    frames = [frame(t, relative_error=1e-6 * t) for t in range(200)]
    frames[3] = replace(WRONG, frame=3)
    shown = shown_frames(validation(*frames))
    assert [one.frame for one in shown] == [3, *range(200 - ROWS + 1, 200)]


def test_the_verdict_names_the_worst_frame_or_those_that_fail() -> None:
    assert verdict(validation(frame(0), frame(1, relative_error=2e-5), frame(2))) == (
        "3 frames as the reference has them: logits off by 2.0e-5 of their largest at most (frame 1, allowed 0.001), "
        "mask IoU at least 0.9999 (expected 0.99)"
    )
    failed = [replace(WRONG, frame=index) for index in (1, 2, 3, 4)]
    found = verdict(validation(frame(0), *failed))
    assert found.startswith(
        "4 of 5 frames not as the reference has them: frame 1: logits off by 1.5 of their largest (allowed 0.001), "
        "mask IoU 0.25 (expected 0.99), mask -1 instead of 2, 9 stable frames instead of 15; frame 2: "
    )
    assert found.endswith("; and 1 more")


def test_the_picture_is_drawn_for_zeros_nan_and_a_single_frame() -> None:
    nothing = frame(1, relative_error=None, logit_error=None, iou_error=0.0, encoder_error=None)
    for made in (validation(frame(0)), validation(frame(0), nothing, max_error=0.0, min_iou=1.0)):
        assert plot_png(made).startswith(b"\x89PNG")
