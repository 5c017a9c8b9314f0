from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from samonnx.runtime.manifest import Manifest, ManifestError, MemoryInfo, PreprocessingInfo
from tests.runtime.hand_made_xmem import HEIGHT, PROMPT_SIZE, WIDTH, build


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return build(tmp_path_factory.mktemp("artifact") / "xmem")


def test_it_comes_back_from_its_text(manifest: Manifest, tmp_path: Path) -> None:
    manifest.save(tmp_path / "manifest.json")
    assert Manifest.load(tmp_path) == manifest
    assert manifest.following().objects == 2
    assert manifest.seeing().frame_size == (HEIGHT, WIDTH)
    assert manifest.prompt_preprocessing is not None
    assert manifest.prompt_preprocessing.frame_size == (PROMPT_SIZE, PROMPT_SIZE)


def test_an_artifact_has_one_kind_of_memory(manifest: Manifest) -> None:
    with pytest.raises(ManifestError, match="fields 'memory' and 'xmem' are both there"):
        replace(manifest, memory=MemoryInfo(1, 6, 16, "recent", 2, 4))
    with pytest.raises(ManifestError, match="a bank is listed, but field 'memory' is missing"):
        replace(manifest, xmem=None)


def test_a_tracker_of_the_other_kind_is_told_where_to_go(manifest: Manifest) -> None:
    with pytest.raises(ManifestError, match=r"tracks by XMem's memory, .*samonnx\.runtime\.open_tracker"):
        manifest.tracking()
    with pytest.raises(ManifestError, match="has no program that tracks by XMem's memory"):
        replace(manifest, xmem=None, bank=()).following()


@pytest.mark.parametrize(
    ("info", "message"),
    [
        (PreprocessingInfo(64, fit="pad", height=48), "prompt_preprocessing: height and width are 48 and None"),
        (
            PreprocessingInfo(64, fit="pad", height=48, width=60),
            "expected both, positive, the longer one equal to size",
        ),
        (PreprocessingInfo(64, fit="crop"), "prompt_preprocessing.fit: expected one of stretch, pad, found 'crop'"),
        (PreprocessingInfo(64, video_resize="area"), "prompt_preprocessing.video_resize: expected one of bicubic"),
    ],
)
def test_how_prompts_are_looked_at_is_checked_as_the_frames_are(
    manifest: Manifest, info: PreprocessingInfo, message: str
) -> None:
    with pytest.raises(ManifestError) as raised:
        replace(manifest, prompt_preprocessing=info)
    assert message in str(raised.value)
