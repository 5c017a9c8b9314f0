"""Replacing a folder: old or new at every instant, no litter, whatever happens on the way."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest

from samonnx import folder_exchange
from samonnx.folder_exchange import FolderError, exchanged_folder

OLD, NEW = {"manifest.json": "old", "weights.bin": "old weights"}, {"manifest.json": "new"}
TraceFunction = Callable[[FrameType, str, object], "TraceFunction | None"]
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    """A folder that holds a folder `target` with the content OLD."""
    make(tmp_path / "target", OLD)
    return tmp_path


def make(folder: Path, content: dict[str, str]) -> None:
    folder.mkdir(parents=True)
    for name, text in content.items():
        (folder / name).write_text(text)


def content_of(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def replace_target(parent: Path, content: dict[str, str] = NEW, name: str = "target") -> None:
    with exchanged_folder(parent / name, 1000) as partial:
        for file, text in content.items():
            (partial / file).write_text(text)


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def no_single_call(_new: Path, _target: Path) -> bool:
    return False


@pytest.fixture(params=["one call", "two renames"])
def each_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "two renames":
        monkeypatch.setattr(folder_exchange, "_exchange_in_one_call", no_single_call)


@pytest.mark.usefixtures("each_way")
def test_the_new_content_replaces_the_old_as_a_whole(parent: Path) -> None:
    replace_target(parent)
    assert content_of(parent / "target") == NEW
    assert listing(parent) == ["target"]


def test_a_new_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    replace_target(tmp_path, name="a/b/target")
    assert content_of(tmp_path / "a/b/target") == NEW
    assert listing(tmp_path / "a/b") == ["target"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    replace_target(tmp_path)
    assert content_of(tmp_path / "target") == NEW


def test_a_link_to_a_folder_stays_a_link(parent: Path) -> None:
    (parent / "link").symlink_to(parent / "target")
    replace_target(parent, name="link")
    assert (parent / "link").is_symlink()
    assert content_of(parent / "target") == NEW


def test_the_folder_is_as_readable_as_any_other(parent: Path) -> None:
    (parent / "other").mkdir()
    replace_target(parent)
    assert (parent / "target").stat().st_mode == (parent / "other").stat().st_mode


@pytest.mark.parametrize("error", [RuntimeError("x"), KeyboardInterrupt(), OSError(errno.EIO, "broken"), SystemExit(1)])
def test_an_exception_in_the_block_passes_through_and_changes_nothing(parent: Path, error: BaseException) -> None:
    def fail() -> None:
        with exchanged_folder(parent / "target", 0) as partial:
            (partial / "half").write_text("x")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert content_of(parent / "target") == OLD
    assert listing(parent) == ["target"]


def test_a_failure_removes_the_parents_that_were_made_for_it(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), exchanged_folder(tmp_path / "a/b/target", 0):
        raise RuntimeError
    assert listing(tmp_path) == []


def test_too_little_space_is_noticed_before_anything_is_written(parent: Path) -> None:
    with pytest.raises(FolderError) as caught, exchanged_folder(parent / "target", 10**18):
        pytest.fail("the block must not be entered")
    free = shutil.disk_usage(parent).free
    assert "1,000,000,000,000,000,000 bytes are needed" in str(caught.value)
    assert f"{free:,}"[:4] in str(caught.value)
    assert listing(parent) == ["target"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_on_the_way_is_said_with_figures(parent: Path, number: int) -> None:
    message = r"1,234 bytes are needed .* bytes are free"
    with pytest.raises(FolderError, match=message), exchanged_folder(parent / "target", 1234):
        raise OSError(number, os.strerror(number))
    assert content_of(parent / "target") == OLD
    assert listing(parent) == ["target"]


def interrupt_at_line(step: int) -> tuple[TraceFunction, list[int]]:
    """A tracer that delivers a real SIGINT before the `step`-th executed line of folder_exchange.py."""
    lines: list[int] = []

    def trace(frame: FrameType, event: str, _argument: object) -> TraceFunction | None:
        if frame.f_code.co_filename != folder_exchange.__file__:
            return None
        if event == "line":
            lines.append(frame.f_lineno)
            if len(lines) == step:
                signal.raise_signal(signal.SIGINT)
        return trace

    return trace, lines


@pytest.fixture
def default_interrupt() -> Iterator[None]:
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    tracer = sys.gettrace()
    yield
    sys.settrace(tracer)
    signal.signal(signal.SIGINT, previous)


@pytest.mark.usefixtures("each_way", "default_interrupt")
def test_ctrl_c_before_any_line_leaves_the_old_or_the_new_content_and_no_litter(tmp_path: Path) -> None:
    outcomes = []
    for step in range(1, 2000):
        parent = tmp_path / str(step)
        make(parent / "target", OLD)
        tracer, lines = interrupt_at_line(step)
        interrupted = False
        sys.settrace(tracer)
        try:
            replace_target(parent)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            sys.settrace(None)
        found = content_of(parent / "target")
        assert found in (OLD, NEW), f"interrupted before line {lines[step - 1]}"
        assert listing(parent) == ["target"], f"interrupted before line {lines[step - 1]}"
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        outcomes.append((interrupted, found == NEW))
        if not interrupted and len(lines) < step:
            break
    assert outcomes[-1] == (False, True)
    assert outcomes[0] == (True, False)
    assert all(interrupted for interrupted, _ in outcomes[:-1])
    # Once the new content is in place it stays there: outcomes never go back from new to old.
    assert [is_new for _, is_new in outcomes] == sorted(is_new for _, is_new in outcomes)


@pytest.mark.usefixtures("each_way")
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_failing_system_call_leaves_the_old_content_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The k-th call of those that make, move or flush a folder fails, for every k."""
    for step in range(1, 100):
        parent = tmp_path / str(step)
        make(parent / "target", OLD)
        calls: list[str] = []

        def failing(name: str, real: Callable[..., object], calls: list[str] = calls, step: int = step) -> object:
            def call(*arguments: object, **options: object) -> object:
                calls.append(name)
                if len(calls) == step:
                    raise OSError(number, os.strerror(number))
                return real(*arguments, **options)

            return call

        with monkeypatch.context() as patch:
            for name in ("mkdir", "fsync", "rename"):
                patch.setattr(os, name, failing(name, getattr(os, name)))
            failed = False
            try:
                replace_target(parent)
            except (FolderError, OSError):
                failed = True
        assert listing(parent) == ["target"], f"{calls[-1]} failed, call {step}"
        assert content_of(parent / "target") == (OLD if failed else NEW)
        if len(calls) < step:
            return
    pytest.fail("the calls do not end")


def test_litter_of_a_killed_process_is_removed_by_the_next_run(parent: Path) -> None:
    script = (
        "import os, pathlib, signal, sys\n"
        "from samonnx.folder_exchange import exchanged_folder\n"
        "with exchanged_folder(pathlib.Path(sys.argv[1]), 0) as partial:\n"
        "    (partial / 'half').write_text('x')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    killed = subprocess.run([sys.executable, "-c", script, str(parent / "target")], check=False, env=environment)
    assert killed.returncode == -signal.SIGKILL
    assert len(listing(parent)) == 2
    assert content_of(parent / "target") == OLD
    replace_target(parent)
    assert listing(parent) == ["target"]
    assert content_of(parent / "target") == NEW


def test_the_partial_folder_of_a_living_writer_is_left_alone(parent: Path) -> None:
    with exchanged_folder(parent / "target", 0) as slow:
        (slow / "a").write_text("slow")
        replace_target(parent)
        assert slow.is_dir()
    assert content_of(parent / "target") == {"a": "slow"}
    assert listing(parent) == ["target"]


def test_a_kill_between_the_two_renames_is_mended_by_the_next_run(parent: Path) -> None:
    (parent / "target").rename(parent / ".target.previous-1-0")
    with pytest.raises(RuntimeError), exchanged_folder(parent / "target", 0):
        raise RuntimeError
    assert content_of(parent / "target") == OLD
    assert listing(parent) == ["target"]


def test_names_of_other_targets_are_not_taken_for_litter(tmp_path: Path) -> None:
    neighbours = [".target2.partial-1-0", ".other.partial-1-0", "target.partial-1-0"]
    for name in neighbours:
        (tmp_path / name).mkdir()
    replace_target(tmp_path)
    assert listing(tmp_path) == sorted([*neighbours, "target"])


def test_it_works_in_a_thread_where_signals_cannot_be_held(parent: Path) -> None:
    thread = threading.Thread(target=replace_target, args=(parent,))
    thread.start()
    thread.join()
    assert content_of(parent / "target") == NEW
