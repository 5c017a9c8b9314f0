"""The runtime on a compiled artifact: video frames in, the eager reference's masks out, corrections included."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from samonnx.models.reference_tracker import FramePrompt, encode_image
from samonnx.runtime.bank import Bank, BankError
from samonnx.runtime.manifest import Manifest
from samonnx.runtime.preprocessing import network_image
from samonnx.runtime.prompts import Points, Prompts
from samonnx.runtime.tracker import Tracker
from samonnx.seeded import seeded_frame
from samonnx.track import main
from tests.laws.scenario import ReferenceRun, relative

Artifacts = Callable[..., Path]
WIDTH, HEIGHT = 224, 112


def frame(index: int) -> npt.NDArray[np.uint8]:
    """A synthetic video frame, uint8 [HEIGHT, WIDTH, 3]."""
    image = seeded_frame(index, WIDTH)[:, :HEIGHT]
    return np.ascontiguousarray((255 * image).astype(np.uint8).transpose(1, 2, 0))


def clicked(x: float, y: float, label: int = 1) -> Prompts:
    return Prompts(points=Points(((x, y),), (label,)))


def test_a_tracked_video_with_a_correction_equals_the_eager_reference(artifacts: Artifacts) -> None:
    folder = artifacts()
    tracker = Tracker(folder, target="onnx", threads=1, num_frames=8)
    run = ReferenceRun.of()
    reference = run.tracker(8)
    info = Manifest.load(folder).seeing()
    with torch.inference_mode():
        for t in range(8):
            features = encode_image(run.model, torch.from_numpy(network_image(frame(t), info)))
            prompt = FramePrompt(torch.tensor([[30.0, 40.0]]), torch.tensor([1], dtype=torch.int32)) if t == 0 else None
            found = tracker.step(frame(t), {1: clicked(60.0, 40.0)} if t == 0 else None)
            record = reference.step(t, features, prompt, attend_memory=t > 0)
            assert relative(found.low_res_logits, record.output.low_res_masks[0].numpy()) <= 1e-4, f"frame {t}"
            if t == 4:
                logits = record.output.low_res_masks[0, 0].clamp(-32, 32)
                again = FramePrompt(torch.tensor([[50.0, 60.0]]), torch.tensor([0], dtype=torch.int32), None, logits)
                corrected = tracker.correct({1: clicked(100.0, 60.0, 0)})
                record = reference.step(t, features, again, attend_memory=False)
                expected = record.output.low_res_masks[0].numpy()
                assert relative(corrected.low_res_logits, expected) <= 1e-3, (
                    "the correction (logits come back as a prompt)"
                )


def test_a_bank_of_another_recipe_is_refused_by_name(artifacts: Artifacts, tmp_path: Path) -> None:
    first = Tracker(artifacts(), threads=1)
    first.step(frame(0), {1: clicked(60.0, 40.0)})
    first.bank().save(tmp_path / "bank.npz")
    other = artifacts("memory.conditioning_slots=4", "programs.track.points=7", programs=("track", "track@first"))
    with pytest.raises(BankError, match="efficientsam3_tiny"):
        Bank.load(tmp_path / "bank.npz", Manifest.load(other))


def test_the_track_command_writes_a_mask_for_every_frame_of_a_folder_of_images(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    from PIL import Image

    images = tmp_path / "images"
    images.mkdir()
    for t in range(3):
        Image.fromarray(frame(t)).save(images / f"{t:03d}.png")
    output, masks = tmp_path / "out.mp4", tmp_path / "masks"
    arguments = [str(artifacts()), str(images), "--point", "60,40", "-o", str(output), "--masks-dir", str(masks)]
    assert main([*arguments, "--quiet"]) == 0
    assert output.stat().st_size > 0
    written = sorted(masks.iterdir())
    assert len(written) == 3
    assert Image.open(written[0]).size == (WIDTH, HEIGHT)
