"""Weights and frames by formula: the same numbers on every machine, from nothing but a name and a seed.

A model whose parameters are filled by `seeded_state_dict`, under the key names of the released checkpoint, must
reproduce the reference tensors in `golden/`, which the original projects' own code computed with this filling.
The formula is therefore frozen; `tests/test_seeded.py` holds digests of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

__all__ = ["seeded_frame", "seeded_state_dict", "seeded_tensor"]

FloatArray = npt.NDArray[np.float32]

# The frames in which the ellipse of `seeded_frame` is out of sight (a tracker has to get over them).
_HIDDEN_FRAMES = range(9, 12)


def seeded_tensor(key: str, shape: tuple[int, ...], seed: int = 0) -> FloatArray:
    """The weights of one state-dict key: float32 of `shape`.

    With n standard normal, drawn for this key alone:

        two or more axes (kernels, matrices, tables)   n / sqrt(product of shape[1:])
        a scalar                                       0.1 n
        `*.bias`, `*.running_mean`                     0.1 n
        `*.running_var`                                1 + 0.1 |n|
        any other vector (norm weights, layer scales)  1 + 0.1 n

    Computed in float64, rounded to float32 once. The stream is NumPy's legacy `RandomState` (frozen by NEP 19),
    started from the first four bytes, little endian, of the SHA-256 of the text "<seed>/<key>".
    """
    start = hashlib.sha256(f"{seed}/{key}".encode()).digest()[:4]
    normal = np.random.RandomState(int.from_bytes(start, "little")).standard_normal(shape)
    return _scaled(np.asarray(normal), key).astype(np.float32)


def _scaled(normal: npt.NDArray[np.float64], key: str) -> npt.NDArray[np.float64]:
    if normal.ndim >= 2:
        return np.asarray(normal / np.sqrt(np.prod(normal.shape[1:])))
    if normal.ndim == 0 or key.endswith((".bias", ".running_mean")):
        return np.asarray(0.1 * normal)
    if key.endswith(".running_var"):
        return 1.0 + 0.1 * np.abs(normal)
    return 1.0 + 0.1 * normal


def seeded_state_dict(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, FloatArray]:
    """`seeded_tensor` for every key of `shapes`, in its order. Leave integer buffers out: they have no formula."""
    return {key: seeded_tensor(key, tuple(shape), seed) for key, shape in shapes.items()}


def seeded_frame(index: int, size: int, seed: int = 0) -> FloatArray:
    """Frame `index` of a synthetic clip: float32 [3, size, size] (red, green, blue), values in 0…1.

    A striped ellipse drifts down to the right and grows before a smooth background; frames 9, 10 and 11 show the
    background alone. In frame 0 its centre is at (0.30, 0.40) of the frame, x before y.
    """
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float64) / size
    time = index / 10.0
    centre_x, centre_y = 0.30 + 0.35 * time * 0.8, 0.40 + 0.15 * np.sin(2.0 * time)
    radius_x, radius_y = 0.12 * (1 + 0.3 * time), 0.09 * (1 + 0.2 * time)

    # The order of operations is part of the formula: another one rounds differently in the last bit.
    background, stripes = [], []
    for c in range(3):
        background.append(0.5 + 0.25 * np.sin(2 * np.pi * ((3 + c) * columns + (2 - c) * rows) + c + seed))
        across, down = 17 * (columns - centre_x), (11 + 2 * c) * (rows - centre_y)
        stripes.append(0.5 + 0.45 * np.sin(2 * np.pi * (across + down) + 2 * c))

    visible = ((columns - centre_x) / radius_x) ** 2 + ((rows - centre_y) / radius_y) ** 2 < 1.0
    if index in _HIDDEN_FRAMES:
        visible = np.zeros_like(visible)
    return np.where(visible, np.stack(stripes), np.stack(background)).astype(np.float32)
