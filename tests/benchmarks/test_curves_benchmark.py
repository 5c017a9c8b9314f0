"""Cost curves in their short form, on the tiny recipe: the right points, a fit that finds a known law; never how fast
they are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from benchmarks import curve_points
from benchmarks.__main__ import main
from benchmarks.curve_points import Axis, full_bank_feeds, overrides_of
from benchmarks.curves import default_sizes
from benchmarks.power_law import fit_power_law
from samonnx.compile import CompileOptions
from samonnx.errors import SamonnxError
from samonnx.exit_codes import ExitCode
from samonnx.programs.program import Port
from samonnx.recipe import load_recipe
from tests.compiled_artifact import TINY

RECIPE = load_recipe(TINY)


@given(
    st.floats(-1, 4),
    st.floats(1e-3, 1e3),
    st.lists(st.integers(1, 2000), min_size=2, max_size=8, unique=True),
)
def test_a_power_law_is_found_again(exponent: float, factor: float, xs: list[int]) -> None:
    law = fit_power_law(xs, [factor * float(x) ** exponent for x in xs])
    assert law is not None
    assert law.exponent == pytest.approx(exponent, abs=1e-6)
    assert law.at(xs[0]) == pytest.approx(factor * float(xs[0]) ** exponent, rel=1e-6)
    assert law.largest_residual < 1e-6


def test_a_point_off_the_line_shows_in_the_residual_and_one_point_has_no_law() -> None:
    law = fit_power_law([1, 2, 4], [1.0, 4.0, 4.0])
    assert law is not None
    assert law.exponent == pytest.approx(1.0)
    assert law.largest_residual == pytest.approx(np.log(4) / 3)
    assert fit_power_law([3], [1.0]) is None
    assert fit_power_law([3, 3], [1.0, 2.0]) is None


@pytest.mark.parametrize(("slots", "recent", "conditioning"), [(2, 1, 1), (4, 3, 1), (7, 6, 1), (8, 6, 2), (16, 6, 10)])
def test_slots_are_recent_ones_first_and_then_conditioning_ones(slots: int, recent: int, conditioning: int) -> None:
    """The table of temporal positions has rows for six recent frames."""
    recipe = load_recipe(TINY, overrides_of(Axis.SLOTS, slots, RECIPE))
    assert (recipe.memory.recent_slots, recipe.memory.conditioning_slots) == (recent, conditioning)


def test_other_axes_change_one_value_and_one_slot_is_too_few() -> None:
    assert load_recipe(TINY, overrides_of(Axis.OBJECTS, 3, RECIPE)).programs["track"].objects == 3
    assert load_recipe(TINY, overrides_of(Axis.IMAGE_SIZE, 56, RECIPE)).model.args["image_size"] == 56
    with pytest.raises(SamonnxError, match="--slots 1: expected 2 or more"):
        overrides_of(Axis.SLOTS, 1, RECIPE)
    assert default_sizes(1008) == (504, 756, 1008)


def found_points(result: dict[str, Any]) -> dict[str, list[int]]:
    return {curve["axis"]: [point["x"] for point in curve["points"]] for curve in result["curves"]}


def test_points_are_compiled_once_measured_and_drawn(
    artifacts: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[tuple[str, ...]] = []

    def take_shared(path: Path, options: CompileOptions, _: Console) -> None:
        """The artifacts that other tests compile as well, in the place of a compile."""
        assert (path, options.targets, options.programs) == (TINY, ("onnx",), ("track",))
        assert options.output is not None
        changed = load_recipe(path, options.overrides) != RECIPE
        compiled.append(options.overrides)
        shared = artifacts(*options.overrides, programs=("track",)) if changed else artifacts()
        shutil.copytree(shared, options.output)

    monkeypatch.setattr(curve_points, "compile_recipe", take_shared)
    json_file, picture = tmp_path / "curves.json", tmp_path / "curves.png"
    arguments = [str(TINY), "--slots", "7,2", "--objects", "1", "--image-sizes", "none", "--target", "onnx"]
    arguments += ["--cache", str(tmp_path / "cache"), "--repeats", "1", "--threads", "1"]
    arguments += ["--json", str(json_file), "--plot", str(picture)]
    assert main(["curves", *arguments]) == ExitCode.OK
    result = json.loads(json_file.read_text())
    assert found_points(result) == {"memory slots": [2, 7], "objects": [1]}
    slots, objects = result["curves"]
    assert slots["points"][0]["flops"] < slots["points"][1]["flops"]
    assert 0 < slots["work"]["exponent"] < 1
    assert slots["time"] is not None
    assert objects["time"] is objects["work"] is None
    assert objects["points"][0]["flops"] == slots["points"][1]["flops"], "seven slots and one object are the recipe's"
    assert picture.read_bytes().startswith(b"\x89PNG")
    two, seven = (("memory.recent_slots=1", "memory.conditioning_slots=1"), overrides_of(Axis.SLOTS, 7, RECIPE))
    assert compiled == [two, seven], "the point of one object is that of seven slots"
    assert main(["curves", *arguments, "--set", f"name={RECIPE.name}"]) == ExitCode.OK
    assert compiled == [two, seven], "all is in the cache"


def test_the_bank_is_full_with_several_conditioning_slots() -> None:
    recipe = load_recipe(TINY, overrides_of(Axis.SLOTS, 9, RECIPE))
    ports = [Port("image", "float32", (1, 3, 2, 2), ""), Port("attend_memory", "bool", (1,), "")]
    ports += [Port(name, "int32", (), "") for name in ("frame_index", "num_frames")]
    ports += [Port("point_labels", "int32", (1, 4), "")]
    for kind, count in (("memory", 9), ("pointer", 18)):
        ports += [Port(f"bank.{kind}", "float32", (1, count, 2), "")]
        ports += [Port(f"bank.{kind}_frame", "int32", (1, count), "")]
        ports += [Port(f"bank.{kind}_conditioning", "bool", (1, count), "")]
    feeds = full_bank_feeds(ports, recipe)
    now = int(feeds["frame_index"])
    assert feeds["bank.memory_frame"][0].tolist() == [0, 1, 2, *range(now - 6, now)]
    assert feeds["bank.memory_conditioning"][0].tolist() == [True] * 3 + [False] * 6
    assert feeds["bank.pointer_frame"][0].tolist() == [0, 1, 2, *range(now - 15, now)]
    assert now - 15 >= 3, "no frame twice"


def test_a_target_that_nothing_here_runs_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["curves", str(TINY), "--target", "web"]) == ExitCode.ERROR
    assert "--target web: measured are onnx, ort-cpu" in capsys.readouterr().err
