"""The emitted full-size graphs of XMem against the original's tensors, within the tolerances that its notes derive
(`golden/xmem/NOTES.md`, "Ties"); the eager side is in `tests/models/test_xmem_oracle.py`.

Rounding decides now and then which of two nearly equal elements is the 30th best: from the second memory frame on in
the clips with a background that stands still (short, long). So a frame is judged by its rms, and by its maximum where
no swap has happened yet.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from samonnx.compile import CompileOptions, compile_recipe
from tests.models.xmem_clip import Figures, golden_sizes

from .xmem_clip import clip_figures, overrides_of

RECIPE = Path(__file__).parents[2] / "recipes" / "xmem.yaml"
PROJECTIONS = {"key": 1e-5, "shrinkage": 5e-5, "selection": 2e-6}
Compiled = Callable[[str], Path]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """`compiled(clip)`: the artifact with the clip's sizes; the long clip and the one that drifts have the same."""
    folders: dict[tuple[str, ...], Path] = {}

    def compile_(clip: str) -> Path:
        key = overrides_of(golden_sizes(clip))
        if key not in folders:
            options = CompileOptions(
                output=tmp_path_factory.mktemp("full") / clip,
                overrides=key,
                programs=("track", "track@plain", "track@memory", "consolidate"),
                targets=("onnx",),
            )
            folders[key] = compile_recipe(RECIPE, options, Console(quiet=True))
        return folders[key]

    return compile_


def figures_of(folder: Path, clip: str, specialised: bool) -> Figures:
    """What holds of all clips is asserted."""
    found = clip_figures(folder, clip, "onnx", specialised)
    for name, of_frames in found.rms.items():
        largest = max(found.largest[name].values())
        line = f"{clip} {name}: largest {largest:.1e}, rms {max(of_frames.values()):.1e}"
        logging.getLogger(__name__).info(line)  # shown by --log-cli-level=INFO
    assert not beyond(found.largest["work life"], 0.0)
    for name, bound in PROJECTIONS.items():
        assert not beyond(found.largest[name], bound), name
    return found


def beyond(of_frames: dict[int, float], bound: float, frames: range | None = None) -> dict[int, float]:
    return {t: x for t, x in of_frames.items() if x > bound and (frames is None or t in frames)}


def over_the_clip(rms: dict[int, float]) -> float:
    return math.sqrt(sum(x * x for x in rms.values()) / len(rms))


@pytest.mark.full_size
@pytest.mark.parametrize("specialised", [False, True], ids=["track", "specialisations"])
def test_drift(compiled: Compiled, specialised: bool) -> None:
    """Sizes, flags, and all prototypes in their order are the original's."""
    found = figures_of(compiled("xmem_drift"), "xmem_drift", specialised)
    assert not found.different
    assert not beyond(found.rms["prob"], 1e-4)
    assert not beyond(found.rms["hidden"], 3e-4)
    assert len(found.largest["usage"]) == 5
    assert not beyond(found.median["readout"], 1e-5)
    assert not beyond(found.largest["value"], 5e-4)
    assert not beyond(found.rms["work use"], 1e-2)
    assert not beyond(found.largest["prototype shrinkage"], 1e-5)
    assert not beyond(found.largest["long life"], 0.0)


@pytest.mark.full_size
@pytest.mark.parametrize(("clip", "untouched"), [("xmem_short", range(6)), ("xmem_long", range(3))])
def test_short_and_long(compiled: Compiled, clip: str, untouched: range) -> None:
    """Close to rounding until a swap; then in the mean. Which prototypes of the long clip are the original's is
    float64's to say (`tests/models/test_xmem_oracle.py`); sizes and flags are."""
    found = figures_of(compiled(clip), clip, specialised=True)
    assert not [x for x in found.different if x[1] != "prototypes"]
    assert not beyond(found.largest["prob"], 1e-5, untouched)
    assert not beyond(found.largest["hidden"], 1e-5, untouched)
    assert over_the_clip(found.rms["prob"]) < 1e-4
    assert over_the_clip(found.rms["hidden"]) < 3e-4
    assert over_the_clip(found.rms["work use"]) < 5e-2
