from __future__ import annotations

import builtins
import importlib
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from samonnx.runtime.extras import MissingExtraError
from samonnx.runtime.video import VideoError, images_in, open_frames, read_image, read_mask
from samonnx.runtime.video_writer import VideoWriter
from tests.runtime.hand_made_artifact import clip


def write_video(path: Path, frames: int = 5, height: int = 30, width: int = 44) -> Path:
    with VideoWriter(path, Fraction(24)) as writer:
        for frame in clip(frames, height, width):
            writer.write(frame)
    return path


def write_images(folder: Path, names: list[str], height: int = 30, width: int = 44) -> Path:
    folder.mkdir(exist_ok=True)
    for name, frame in zip(names, clip(len(names), height, width), strict=True):
        Image.fromarray(frame).save(folder / name)
    return folder


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".avi"])
def test_a_video_file_gives_its_frames_in_order(tmp_path: Path, suffix: str) -> None:
    source = open_frames(write_video(tmp_path / f"clip{suffix}"))
    assert (source.width, source.height, source.count, source.rate, source.kind) == (44, 30, 5, Fraction(24), "video")
    frames = list(source)
    assert len(frames) == 5
    for frame, original in zip(frames, clip(5), strict=True):
        assert frame.shape == (30, 44, 3)
        assert frame.dtype == np.uint8
        assert np.abs(frame.astype(int) - original).mean() < 12  # the codec is lossy
    assert len(list(source)) == 5  # a second reading starts from the first frame


def test_a_rotation_flag_is_obeyed(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "clip.mp4", Fraction(24)) as writer:
        for _ in range(3):
            frame = np.zeros((32, 48, 3), dtype=np.uint8)
            frame[:16, :16] = 255
            writer.write(frame)
    raw = (tmp_path / "clip.mp4").read_bytes()
    one, zero = (65536).to_bytes(4, "big"), bytes(4)
    identity = one + zero * 3 + one + zero * 3 + (1 << 30).to_bytes(4, "big")
    quarter = zero + one + zero + (-65536).to_bytes(4, "big", signed=True) + zero * 4 + (1 << 30).to_bytes(4, "big")
    at = raw.index(identity, raw.index(b"tkhd"))
    (tmp_path / "turned.mp4").write_bytes(raw[:at] + quarter + raw[at + 36 :])
    source = open_frames(tmp_path / "turned.mp4")
    assert (source.width, source.height) == (32, 48)
    first = next(iter(source))
    assert first[:16, -16:].min() > 150  # clockwise: what was top left is top right
    assert first[16:].max() < 100


def test_images_are_ordered_by_the_numbers_in_their_names(tmp_path: Path) -> None:
    names = ["frame_1.png", "frame_2.png", "frame_10.png", "frame_11.PNG"]
    folder = write_images(tmp_path / "images", names)
    (folder / "notes.txt").write_text("not a frame")
    (folder / ".hidden.png").write_bytes(b"")
    source = open_frames(folder)
    assert (source.count, source.kind, source.rate) == (4, "images", Fraction(25))
    assert [path.name for path in source.images] == names
    assert images_in(folder) == source.images
    for frame, original in zip(source, clip(4), strict=True):
        np.testing.assert_array_equal(frame, original)


def test_one_image_is_a_clip_of_one_frame(tmp_path: Path) -> None:
    write_images(tmp_path, ["photo.png"])
    source = open_frames(tmp_path / "photo.png")
    assert (source.count, source.kind) == (1, "images")
    np.testing.assert_array_equal(next(iter(source)), clip(1)[0])


def test_an_image_by_itself_is_read_as_rgb_and_named_if_it_cannot_be(tmp_path: Path) -> None:
    write_images(tmp_path, ["photo.png"])
    np.testing.assert_array_equal(read_image(tmp_path / "photo.png"), clip(1)[0])
    with pytest.raises(VideoError, match=r"image .*no\.png does not exist"):
        read_image(tmp_path / "no.png")
    (tmp_path / "bad.png").write_bytes(b"nonsense")
    with pytest.raises(VideoError, match=r"image .*bad\.png cannot be read: "):
        read_image(str(tmp_path / "bad.png"))


def test_an_image_too_large_to_be_meant_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path, ["photo.png"])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for read in (read_image, read_mask):
        with pytest.raises(VideoError, match=r"photo\.png cannot be read.*exceeds limit"):
            read(tmp_path / "photo.png")


def test_grey_images_become_rgb(tmp_path: Path) -> None:
    Image.fromarray(clip(1)[0][..., 0]).save(tmp_path / "grey.png")
    assert next(iter(open_frames(tmp_path / "grey.png"))).shape == (30, 44, 3)


def test_nothing_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"no\.mp4 does not exist; expected a video file, a folder of images"):
        open_frames(tmp_path / "no.mp4")


@pytest.mark.parametrize("content", [b"", b"this is not a video" * 100])
def test_a_file_that_is_no_video_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "clip.mp4").write_bytes(content)
    with pytest.raises(VideoError, match=r"clip\.mp4 cannot be read as a video: "):
        open_frames(tmp_path / "clip.mp4")


def test_a_video_cut_short_is_said(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])  # an mp4 has its index at the end
    with pytest.raises(VideoError, match=r"clip\.mp4 cannot be read as a video: "):
        open_frames(path)


def test_a_file_with_sound_only_is_said(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(VideoError, match=r"sound\.mp4 has no video stream"):
        open_frames(tmp_path / "sound.mp4")


def test_a_video_without_frames_is_said(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.avi")
    raw = path.read_bytes()
    start = raw.index(b"movi") + 4
    path.write_bytes(raw[:start])  # headers are whole, no frame follows
    with pytest.raises(VideoError, match=r"clip\.avi has a video stream, but no frame in it"):
        open_frames(path)


def test_a_damaged_frame_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_frames(write_video(tmp_path / "clip.mp4"))
    original = av.VideoFrame.to_ndarray
    seen = []

    class Frame:
        """The decoder itself is hard to break on purpose: it conceals damage."""

        rotation = 0

        def __init__(self, frame: av.VideoFrame) -> None:
            self.frame = frame

        def to_ndarray(self, format: str) -> object:
            seen.append(1)
            if len(seen) == 3:
                raise av.error.InvalidDataError(1, "Invalid data found when processing input")
            return original(self.frame, format=format)

    real_open = av.open

    class Container:
        def __init__(self, path: str) -> None:
            self.container = real_open(path)
            self.streams = self.container.streams

        def decode(self, stream: object) -> object:
            return (Frame(frame) for frame in self.container.decode(stream))  # type: ignore[arg-type]  # as given

        def __enter__(self) -> Container:
            return self

        def __exit__(self, *_: object) -> None:
            self.container.close()

    monkeypatch.setattr(av, "open", Container)
    with pytest.raises(VideoError, match=r"frame 2 of .*clip\.mp4 cannot be decoded: .*Invalid data"):
        list(source)


def test_a_folder_without_images_is_said(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"has no images; looked for \.jpg, \.jpeg, \.png"):
        open_frames(tmp_path)


def test_images_of_mixed_sizes_are_said_when_reached(tmp_path: Path) -> None:
    write_images(tmp_path, ["0.png", "1.png"])
    write_images(tmp_path, ["2.png"], height=10, width=20)
    with pytest.raises(VideoError, match=r"2\.png is 20 x 10 pixels, the first 44 x 30; all frames of a clip"):
        list(open_frames(tmp_path))


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    write_images(tmp_path, ["0.png", "1.png"])
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:60])
    with pytest.raises(VideoError, match=r"image .*1\.png cannot be read"):
        list(open_frames(tmp_path))


@pytest.mark.parametrize(("package", "name"), [("av", "clip.mp4"), ("PIL", "photo.png")])
def test_a_missing_package_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, name: str
) -> None:
    (tmp_path / name).write_bytes(b"x")
    for module in ("av", "PIL", "PIL.Image"):
        if module.partition(".")[0] == package:
            monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        MissingExtraError, match=rf"package '{package}' is not installed; run: pip install \"samonnx\[video\]\""
    ):
        open_frames(tmp_path / name)


def test_a_mask_is_read_from_grey_binary_and_palette_images(tmp_path: Path) -> None:
    mask = np.zeros((6, 8), dtype=np.uint8)
    mask[2:4, 1:5] = 1
    Image.fromarray(mask * 255).save(tmp_path / "grey.png")
    Image.fromarray(mask).save(tmp_path / "ones.png")
    Image.fromarray(mask * 255).convert("1").save(tmp_path / "bits.png")
    Image.fromarray(np.stack([mask * 255] * 3, axis=2)).save(tmp_path / "rgb.png")
    palette = Image.fromarray(mask * 3)
    palette = palette.convert("P")
    palette.putdata((mask * 3).reshape(-1).tolist())
    palette.putpalette([0, 0, 0, 1, 1, 1, 2, 2, 2, 9, 0, 0])
    palette.save(tmp_path / "palette.png")
    for name in ("grey", "ones", "bits", "rgb", "palette"):
        np.testing.assert_array_equal(read_mask(tmp_path / f"{name}.png"), mask == 1, err_msg=name)


def test_a_mask_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"mask .*no\.png does not exist"):
        read_mask(tmp_path / "no.png")
    (tmp_path / "bad.png").write_bytes(b"nonsense")
    with pytest.raises(VideoError, match=r"mask .*bad\.png cannot be read as an image"):
        read_mask(tmp_path / "bad.png")


def test_the_runtime_imports_nothing_but_numpy_and_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of installed extras must not be needed to import any module of the runtime."""
    real = builtins.__import__
    refused = {"torch", "onnx", "pydantic", "yaml", "rich", "av", "PIL", "safetensors", "onnx_ir"}

    def guarded(name: str, *rest: object) -> object:
        if name.split(".")[0] in refused:
            raise AssertionError(f"the runtime imports {name}")
        return real(name, *rest)  # type: ignore[arg-type]  # passed through as they came

    for module in ("manifest", "session", "bank", "prompts", "preprocessing", "object_group", "tracker"):
        spec = importlib.util.find_spec(f"samonnx.runtime.{module}")
        assert spec is not None
        assert spec.loader is not None
        fresh = importlib.util.module_from_spec(spec)
        with monkeypatch.context() as patch:
            patch.setattr(builtins, "__import__", guarded)
            patch.setitem(importlib.sys.modules, fresh.__name__, fresh)  # type: ignore[attr-defined]  # as importlib does
            spec.loader.exec_module(fresh)
