"""SAMURAI's decisions in plain NumPy, float64, for one object, with branches and a list of all frames, as the
original takes them; and SAM 3's score-based memory selection.

Written from the description in words; it shares nothing with `samonnx`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]

F = np.eye(8) + np.eye(8, k=4)
H = np.eye(4, 8)


def initiate(measurement: Float) -> tuple[Float, Float]:
    h = measurement[3]
    std = [h / 10, h / 10, 1e-2, h / 10, h / 16, h / 16, 1e-5, h / 16]
    return np.concatenate((measurement, np.zeros(4))), np.diag(np.square(std))


def predict(mean: Float, covariance: Float) -> tuple[Float, Float]:
    h = mean[3]
    std = [h / 20, h / 20, 1e-2, h / 20, h / 160, h / 160, 1e-5, h / 160]
    return F @ mean, F @ covariance @ F.T + np.diag(np.square(std))


def update(mean: Float, covariance: Float, measurement: Float) -> tuple[Float, Float]:
    h = mean[3]
    noise = np.diag(np.square([h / 20, h / 20, 1e-1, h / 20]))
    s = H @ covariance @ H.T + noise
    gain = np.linalg.solve(s, H @ covariance).T
    return mean + gain @ (measurement - H @ mean), covariance - gain @ s @ gain.T


def box_of(logits: npt.NDArray[Any]) -> list[int]:
    rows, columns = np.nonzero(logits > 0)
    if len(rows) == 0:
        return [0, 0, 0, 0]
    return [int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())]


def state_of(box: Sequence[float]) -> Float:
    x0, y0, x1, y1 = box
    height = y1 - y0 if y1 != y0 else 1
    return np.array([(x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0) / height, height], np.float64)


def corners_of(state: Float) -> Float:
    x, y, a, h = state
    return np.array([x - a * h / 2, y - h / 2, x + a * h / 2, y + h / 2])


def iou_of(one: Sequence[float] | Float, other: Sequence[float]) -> float:
    if list(other) == [0, 0, 0, 0]:
        return 0.0
    width = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    common = width * height
    union = (one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1]) - common
    return float(common / union) if union != 0 else 0.0


@dataclass
class Step:
    """What one call of the mask decoder led to; `boxes` of all candidates, `motion_score` None unless stable.

    `margin`: by how much the choice was ahead of candidates with another box, where rounding could have decided.
    """

    choice: int
    phase: int
    motion_score: float | None
    boxes: list[list[int]]
    margin: float = np.inf


@dataclass
class Selection:
    """The mask choice of one object; its state is None before the first call."""

    threshold: int = 15
    iou_threshold: float = float(np.float32(0.3))  # upstream compares float32 scores
    weight: float = 0.25
    mean: Float | None = None
    covariance: Float | None = None
    stable_frames: int = 0

    def step(self, masks: npt.NDArray[np.float32], ious: npt.NDArray[np.float32]) -> Step:
        """masks [3, S, S], ious [3]."""
        boxes = [box_of(mask) for mask in masks]
        best = int(np.argmax(ious))
        if self.mean is None or self.covariance is None or self.stable_frames == 0:
            self.mean, self.covariance = initiate(state_of(boxes[best]))
            self.stable_frames += 1
            return Step(best, 1, None, boxes)
        self.mean, self.covariance = predict(self.mean, self.covariance)
        if self.stable_frames < self.threshold:
            if ious[best] > self.iou_threshold:
                self.mean, self.covariance = update(self.mean, self.covariance, state_of(boxes[best]))
                self.stable_frames += 1
            else:
                self.stable_frames = 0
            return Step(best, 2, None, boxes)
        motion = np.array([iou_of(corners_of(self.mean[:4]), box) for box in boxes])
        weighted = self.weight * motion + (np.float32(1 - self.weight) * ious).astype(np.float64)
        best = int(np.argmax(weighted))
        margin = min(
            (weighted[best] - w for w, box in zip(weighted, boxes, strict=True) if box != boxes[best]), default=np.inf
        )
        if ious[best] < self.iou_threshold:
            self.stable_frames = 0
        else:
            self.mean, self.covariance = update(self.mean, self.covariance, state_of(boxes[best]))
        return Step(best, 3, float(motion[best]), boxes, float(margin))


@dataclass(frozen=True)
class Frame:
    """One remembered frame: its scores, and whether it was prompted."""

    iou: float
    object_score: float
    motion_score: float | None = None
    conditioning: bool = False

    def accepted_by_motion(self) -> bool:
        return self.iou > 0.5 and self.object_score > 0 and (self.motion_score is None or self.motion_score > 0)

    def accepted_by_score(self) -> bool:
        presence = 2 / (1 + np.exp(-self.object_score)) - 1 if self.object_score > 0 else 0.0
        return bool(presence * self.iou > 0.01)


History = Sequence[Frame | None]
"""Every frame of the clip so far; None where a frame was not visited."""


def walk(t: int, history: History, last: int, policy: str, stop: int) -> list[int]:
    """Frames in ascending order: at most `stop` accepted ones of `last` … t − 1, and t − 1. Missing and conditioning
    frames are passed over (SAMURAI's own code stops with KeyError there)."""
    valid: list[int] = []
    for i in range(t - 1, last - 1, -1):
        frame = history[i]
        if frame is not None and not frame.conditioning:
            if frame.accepted_by_motion() if policy == "samurai" else frame.accepted_by_score():
                valid.insert(0, i)
            if len(valid) >= stop:
                break
    if t - 1 not in valid:
        valid.append(t - 1)
    return valid


FIRST = {"samurai": 2, "selection": 1}


def attended(t: int, history: History, policy: str, stop: int = 15) -> list[tuple[int, int]]:
    """(frame, t_pos) of the frames without a prompt, oldest first; `history` has the frames before t."""
    valid = walk(t, history, FIRST[policy], policy, stop)
    found = []
    for t_pos in range(1, 7):
        back = 7 - t_pos
        if back <= len(valid) and remembered(history, valid[-back]):
            found.append((valid[-back], t_pos))
    return found


def pointers(t: int, history: History, number: int) -> list[tuple[int, int]]:
    """SAM 3's pointers of frames without a prompt under score-based selection: (frame, distance), newest first."""
    if t == 0:
        return []
    valid = walk(t, history, FIRST["selection"], "selection", number - 1)
    found = []
    for distance in range(1, number):
        if distance >= len(valid):
            break
        if remembered(history, valid[-distance]):
            found.append((valid[-distance], distance))
    return found


def remembered(history: History, index: int) -> bool:
    frame = history[index] if 0 <= index < len(history) else None
    return frame is not None and not frame.conditioning
