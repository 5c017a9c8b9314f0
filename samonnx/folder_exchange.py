"""Replace a folder as a whole: at every instant its name leads to the old content or to the new, never to a mixture.

    .NAME.partial-…  is filled and flushed to disk  ─►  exchanged with NAME in one system call  ─►  the old one removed

An exception or Ctrl-C on the way leaves NAME as it was and removes the partial folder. A killed process cannot clean
up after itself, so the next run does: each partial folder is locked by its owner, and the lock dies with the process.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from samonnx.errors import SamonnxError

if sys.platform != "win32":
    import fcntl

__all__ = ["FolderError", "exchanged_folder"]

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_NO_LOCKS = -1
_FULL = (errno.ENOSPC, errno.EDQUOT)

_counter = itertools.count()


class FolderError(SamonnxError):
    """A folder cannot be written; what was there before is still there."""


@dataclass(frozen=True)
class _Partial:
    path: Path
    lock: int
    made_parents: tuple[Path, ...]
    """Folders above that did not exist before, innermost first."""


@contextmanager
def exchanged_folder(target: Path, bytes_needed: int) -> Iterator[Path]:
    """An empty folder beside `target` to write into; it takes the place of `target` when the block ends well.

    The caller flushes its files; this flushes the folders. Raises FolderError when fewer than `bytes_needed` bytes
    are free, or when the disk fills up on the way; other exceptions of the block pass through. In all those cases
    `target` is as it was and nothing else is left behind.
    """
    target = Path(os.path.realpath(target))
    partial: _Partial | None = None
    try:
        _check_space(target, bytes_needed)
        with _interrupts_held():
            partial = _create(target)
        yield partial.path
        _flush_folder(partial.path)
        with _interrupts_held():
            _exchange(partial.path, target)
            with suppress(OSError):  # the new content is in place; only when it reaches the disk is left open
                _flush_folder(target.parent)
            _remove(partial, keep_parents=True)
            partial = None
    except OSError as error:
        if error.errno in _FULL:
            raise FolderError(_full(target, bytes_needed)) from error
        raise
    finally:
        if partial is not None:
            with _interrupts_held():
                _remove(partial, keep_parents=False)


def _check_space(target: Path, bytes_needed: int) -> None:
    if _free(target) < bytes_needed:
        raise FolderError(_full(target, bytes_needed))


def _free(target: Path) -> int:
    existing = next(parent for parent in target.parents if parent.is_dir())
    return shutil.disk_usage(existing).free


def _full(target: Path, bytes_needed: int) -> str:
    return (
        f"not enough disk space for {target}: {bytes_needed:,} bytes are needed (beside the previous output, which "
        f"is kept until the new one is complete), {_free(target):,} bytes are free. Free some, or choose another "
        f"--output. What was there before is untouched"
    )


def _create(target: Path) -> _Partial:
    """A new locked folder beside `target`, after what killed processes left there has been cleared away."""
    made = tuple(itertools.takewhile(lambda parent: not parent.exists(), target.parents))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _recover(target)
        while True:
            path = target.parent / f".{target.name}.partial-{os.getpid()}-{next(_counter)}"
            lock = _make_locked(path)
            if lock is not None:
                return _Partial(path, lock, made)
    except BaseException:
        for parent in made:
            with suppress(OSError):
                parent.rmdir()
        raise


def _make_locked(path: Path) -> int | None:
    """Make the folder and lock it; None if the name is taken or another process was quicker with either."""
    with suppress(FileExistsError):
        try:
            path.mkdir()
            lock = _lock(path)
            # Another process that was clearing away may have come in between, and taken the folder for litter.
            if lock is not None and path.is_dir():
                return lock
            _unlock(lock)
        except FileExistsError:
            raise
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise
    return None


def _lock(path: Path) -> int | None:
    """An exclusive lock on a folder, until `_unlock` or the end of the process.

    Returns a descriptor; None if another process has the lock, or the folder is gone; _NO_LOCKS where folders cannot
    be locked (Windows, some network file systems): litter of killed processes stays there then.
    """
    if sys.platform == "win32":
        return _NO_LOCKS
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        return None if isinstance(error, BlockingIOError) else _NO_LOCKS
    return descriptor


def _unlock(lock: int | None) -> None:
    if lock is not None and lock != _NO_LOCKS:
        os.close(lock)


def _recover(target: Path) -> None:
    """Put back a folder that a kill between two renames left aside; remove partial folders that nobody owns."""
    for path in sorted(target.parent.glob(f".{_escaped(target.name)}.previous-*")):
        if target.exists():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.rename(target)
    for path in sorted(target.parent.glob(f".{_escaped(target.name)}.partial-*")):
        lock = _lock(path)
        if lock is not None and lock != _NO_LOCKS:
            shutil.rmtree(path, ignore_errors=True)
        _unlock(lock)


def _escaped(name: str) -> str:
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)


def _remove(partial: _Partial, *, keep_parents: bool) -> None:
    shutil.rmtree(partial.path, ignore_errors=True)
    _unlock(partial.lock)
    if not keep_parents:
        for parent in partial.made_parents:
            with suppress(OSError):
                parent.rmdir()


def _exchange(new: Path, target: Path) -> None:
    """Let the name `target` lead to the folder `new`; what it led to before, if anything, is at `new` or removed."""
    try:
        new.rename(target)  # nothing there, or an empty folder
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if not _exchange_in_one_call(new, target):
            _exchange_by_renames(new, target)


def _exchange_in_one_call(new: Path, target: Path) -> bool:
    """Linux: renameat2 with RENAME_EXCHANGE. False where the system or the file system does not have it."""
    if sys.platform != "linux":
        return False
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    arguments = (ctypes.c_int(_AT_FDCWD), os.fsencode(new), ctypes.c_int(_AT_FDCWD), os.fsencode(target))
    if renameat2(*arguments, ctypes.c_uint(_RENAME_EXCHANGE)) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(new), None, str(target))


def _exchange_by_renames(new: Path, target: Path) -> None:
    """Two renames, with a moment between them in which `target` does not exist; `_recover` mends a kill in it.

    What was there before is removed here, because a third rename could fail.
    """
    aside = target.parent / new.name.replace(".partial-", ".previous-")
    target.rename(aside)
    try:
        new.rename(target)
    except BaseException:
        aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _flush_folder(path: Path) -> None:
    if sys.platform == "win32":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C waits until the block is over. (Only the main thread gets it, so elsewhere there is nothing to hold.)"""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []

    def hold(number: int, _frame: FrameType | None) -> None:
        held.append(number)

    previous = signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous if previous is not None else signal.default_int_handler)
        if held:
            signal.raise_signal(held[0])
