"""Made-up banks of XMem for the bench: a memory that is as full as it can be before a frame without a mask."""

from __future__ import annotations

import zlib

import numpy as np

from samonnx.errors import SamonnxError
from samonnx.runtime.manifest import BankPair, Manifest, XMemInfo
from samonnx.runtime.session import Array
from samonnx.runtime.xmem_bank import XMemBank

__all__ = ["full_xmem_bank"]


def full_xmem_bank(manifest: Manifest, objects: int | None = None) -> XMemBank:
    """Objects 1, 2, … (default: as many as there are rows) that have been there since frame 0; all slots but one are
    filled, as are all long-term places, and the next frame is no memory frame (unless `every` is 1). Tensors are not to
    be written to. Raises SamonnxError for more objects than rows."""
    info = manifest.following()
    count = info.objects if objects is None else objects
    if count > info.objects:
        raise SamonnxError(
            f"{count} objects: the graph has {info.objects} row{'' if info.objects == 1 else 's'} for objects, and "
            f"XMem tracks all in one call; compile with --set programs.track.objects={count}"
        )
    rows = tuple(row + 1 if row < count else None for row in range(info.objects))
    return XMemBank.made_by(manifest, {pair.input: _tensor(pair, info, count) for pair in manifest.bank}, rows)


def _tensor(pair: BankPair, info: XMemInfo, objects: int) -> Array:
    name = pair.input.removeprefix("bank.")
    latest = max(info.working_frames - 2, 0) * info.every
    integers = {
        "working_frame": np.append(np.arange(info.working_frames - 1) * info.every, -1),
        "long_frame": np.zeros(info.long_term),
        "long_count": np.array(info.long_term),
        "object_since": np.where(np.arange(info.objects) < objects, 0, -1),
        "frame_count": np.array(latest + 1),
        "last_memory": np.array(latest),
    }
    if name in integers:
        return integers[name].astype(pair.dtype).reshape(pair.shape)
    random = np.random.default_rng(zlib.crc32(pair.input.encode()))
    if name.endswith(("shrinkage", "selection", "use", "life")):
        low = 1 if name.endswith(("shrinkage", "life")) else 0
        return (low + random.random(pair.shape, dtype=np.float32)).astype(pair.dtype)
    return random.standard_normal(pair.shape, dtype=np.float32).astype(pair.dtype)
