"""The runtime on a compiled artifact of SAM in front of XMem: video frames in, the eager step's masks out."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from samonnx.exit_codes import ExitCode
from samonnx.models.xmem_bank import empty_bank, memory_due, working_is_full
from samonnx.models.xmem_consolidation import consolidate
from samonnx.models.xmem_step import XMemFrame, XMemStep
from samonnx.runtime import open_tracker
from samonnx.runtime.manifest import Manifest
from samonnx.runtime.preprocessing import network_image
from samonnx.runtime.prompts import Prompts
from samonnx.runtime.video_writer import VideoWriter
from samonnx.runtime.xmem_prompts import given_object
from samonnx.runtime.xmem_tracker import XMemTracker
from samonnx.track import main
from tests.compiled_artifact import compiled_folder
from tests.documents import blocks
from tests.models.sam_xmem_tiny import FRAME, RECIPE, tiny_sam_xmem, tiny_sizes, video_frame
from tests.runtime.xmem_by_hand import click

WIDTH, HEIGHT = 143, 90
PROMPTS: dict[int, dict[int, Prompts]] = {0: {1: click(60, 40)}, 5: {2: click(30, 70, (90, 20, 0))}}


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    return compiled_folder(shared, ("verify.frames=4",), recipe=RECIPE, targets=("onnx",))


class Eager:
    """The loop of the original over the eager step, with what SAM finds as the given masks."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest, self.model, self.sizes = manifest, tiny_sam_xmem(), tiny_sizes()
        sizes = self.sizes
        self.step_ = XMemStep(self.model.xmem, sizes.memory).eval()
        self.bank = empty_bank(sizes.memory, sizes.widths, sizes.objects, *sizes.grid)

    def step(self, frame: np.ndarray, given: dict[int, Prompts]) -> Tensor:
        """Objects are in row number - 1."""
        manifest, memory = self.manifest, self.sizes.memory
        masks, is_given = torch.zeros(2, *FRAME), torch.zeros(2, dtype=torch.bool)
        for number, prompt in given.items():
            clicks = given_object(manifest, number, prompt, width=WIDTH, height=HEIGHT).clicks
            assert clicks is not None
            assert manifest.prompt_preprocessing is not None
            image = torch.from_numpy(network_image(frame, manifest.prompt_preprocessing))
            points = torch.from_numpy(clicks.coordinates)[None], torch.from_numpy(clicks.labels)[None]
            found = self.model.find_masks(self.model.sam.encode_image(image), *points, FRAME)
            masks[number - 1], is_given[number - 1] = found.masks[0], True
        last = torch.tensor(False)
        due = memory_due(self.bank, memory.every, is_given, last)
        image = torch.from_numpy(network_image(frame, manifest.seeing()))
        stepped: XMemFrame = self.step_(image, masks, is_given, due, last, self.bank)
        self.bank = stepped.bank
        if bool(working_is_full(self.bank)):
            self.bank = consolidate(self.bank, memory)
        return stepped.probabilities


def test_a_tracked_video_equals_the_eager_step_over_several_consolidations(artifact: Path) -> None:
    tracker = XMemTracker(artifact, target="onnx", threads=1)
    eager = Eager(tracker.manifest)
    with torch.inference_mode():
        for t in range(16):
            frame = video_frame(t, HEIGHT, WIDTH)
            found, expected = tracker.step(frame, PROMPTS.get(t, {})), eager.step(frame, PROMPTS.get(t, {})).numpy()
            rms = np.sqrt(((found.probabilities - expected[: len(found.probabilities)]) ** 2).mean())
            # a swap of equally similar elements moves single positions (golden/xmem/NOTES.md, "Ties")
            assert rms <= 1e-4, f"frame {t}: rms {rms}"
    assert int(eager.bank.long_count) > 0
    assert tracker.bank().tensors["bank.object_since"].tolist() == eager.bank.object_since.tolist() == [0, 5]
    assert set(tracker.open_programs) == {"track@memory", "track@plain", "consolidate"}


def test_a_saved_bank_goes_on_to_the_last_bit(artifact: Path) -> None:
    first, second = (XMemTracker(artifact, threads=1) for _ in range(2))
    for t in range(7):
        first.step(video_frame(t, HEIGHT, WIDTH), PROMPTS.get(t, {}))
    second.restore(first.bank())
    for t in range(7, 10):
        frame = video_frame(t, HEIGHT, WIDTH)
        np.testing.assert_array_equal(first.step(frame).probabilities, second.step(frame).probabilities)


def test_both_networks_see_normalised_frames(artifact: Path) -> None:
    """The reference project feeds frame / 255 to XMem."""
    manifest = Manifest.load(artifact)
    mean, std = np.array((0.485, 0.456, 0.406)), np.array((0.229, 0.224, 0.225))
    grey = np.full((HEIGHT, WIDTH, 3), 120, dtype=np.uint8)
    expected = (120 / 255 - mean) / std
    followed = network_image(grey, manifest.seeing())
    np.testing.assert_allclose(followed[0, :, 10, 10], expected, rtol=1e-5)
    assert followed.shape == (1, 3, *FRAME)
    assert manifest.prompt_preprocessing is not None
    prompted = network_image(grey, manifest.prompt_preprocessing)
    np.testing.assert_allclose(prompted[0, :, 79, 127], expected, rtol=1e-5)
    assert not prompted[0, :, 80:].any()
    assert prompted.shape == (1, 3, 128, 128)


def test_the_guide_runs(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with VideoWriter(Path("clip.mp4"), Fraction(24)) as writer:
        for index in range(4):
            writer.write(video_frame(index, 360, 480))
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist" / "sam_xmem").symlink_to(artifact)
    code = blocks("docs/guides/follow_an_object.md", "py")
    assert len(code) == 3
    names: dict[str, object] = {}
    for number, block in enumerate(code):
        exec(compile(block, f"block {number}", "exec"), names)
    assert capsys.readouterr().out.startswith("0 (1,) [")
    tracker = names["tracker"]
    assert isinstance(tracker, XMemTracker)
    assert (tracker.objects, tracker.next_frame) == ((1,), 4)


def test_a_click_on_the_command_line_is_followed(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for index in range(5):
        Image.fromarray(video_frame(index, HEIGHT, WIDTH)).save(tmp_path / "in" / f"{index}.png")
    options = ["--point", "60,40", "--frame", "2", "--object", "2", "--point", "30,70", "--masks-dir"]
    assert main([str(artifact), str(tmp_path / "in"), *options, str(tmp_path / "out"), "--quiet"]) == ExitCode.OK
    written = {path.name: np.asarray(Image.open(path)) > 0 for path in (tmp_path / "out").iterdir()}
    assert len(written) == 5 + 3
    tracker = open_tracker(artifact, kind="images")
    prompts = {0: {1: click(60, 40)}, 2: {2: click(30, 70)}}
    for result in tracker.track([video_frame(index, HEIGHT, WIDTH) for index in range(5)], prompts):
        for number, mask in zip(result.objects, result.masks, strict=True):
            np.testing.assert_array_equal(written[f"frame_{result.frame_index:05d}_object_{number}.png"], mask)
