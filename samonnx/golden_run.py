"""Run the programs of an artifact on made-up inputs that are the same everywhere, and sum up every output.

A program with a bank is stepped from the empty bank, `next_bank` fed back, over the frames of the synthetic clip with
one click in the first; a program without one is run once. Needs numpy and the inference engine only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from samonnx.golden_file import FORMAT, GoldenRecord, OutputRecord, Samples
from samonnx.runtime.manifest import Manifest, PortInfo, ProgramInfo
from samonnx.runtime.session import Array, Session
from samonnx.seeded import seeded_frame, seeded_tensor

__all__ = ["made_up_input", "run_program", "run_target", "summed_up"]

_SAMPLES = 1024
_FIRST_CLICK = (0.30, 0.40)
"""Of width and height: the centre of the ellipse in frame 0 of the synthetic clip."""
_WORDS = (49406, 320, 1929, 49407)
"""CLIP's tokens of "a dog"."""
_CLICK_SHIFT = 0.17
"""Of the width, from each object's click to the next one's."""


def run_target(folder: Path, target: str, programs: tuple[str, ...], steps: int, seed: int) -> GoldenRecord:
    """Run `programs` of the artifact `folder`, in the graphs for `target`. Raises ManifestError, SessionError."""
    manifest = Manifest.load(folder)
    summaries: list[tuple[OutputRecord, Samples]] = []
    for name in programs:
        session = Session(folder, name, target=target, manifest=manifest)
        for step, arrays in run_program(session, steps, seed):
            for output, array in arrays.items():
                summaries.append(summed_up(array, program=name, step=step, output=output))
    return GoldenRecord(
        format=FORMAT,
        recipe=manifest.recipe,
        recipe_digest=manifest.recipe_digest,
        weights_source=manifest.weights.source,
        weights_digest=manifest.weights.digest,
        target=target,
        tools=dict(manifest.tools or {}),
        steps=steps,
        seed=seed,
        outputs=tuple(record for record, _ in summaries),
        samples=tuple(samples for _, samples in summaries),
    )


def run_program(session: Session, steps: int, seed: int) -> Iterator[tuple[int, Mapping[str, Array]]]:
    """Step number and outputs: `steps` times with the bank fed back, once if the program takes no bank, and not beyond
    the frames that fill as many slots as it was made for."""
    program, manifest = session.program, session.manifest
    names = {port.name for port in program.inputs}
    pairs = [pair for pair in manifest.bank if pair.input in names]
    bank: dict[str, Array] = {pair.input: np.full(pair.shape, pair.empty, pair.dtype) for pair in pairs}
    most = steps if program.filled is None else min(steps, program.filled + 1)
    for step in range(most if pairs else 1):
        inputs = {p.name: made_up_input(p, program, step, steps, seed) for p in program.inputs if p.name not in bank}
        outputs = session.run(inputs | bank)
        yield step, outputs
        bank = {pair.input: outputs[pair.output] for pair in pairs}


def made_up_input(port: PortInfo, program: ProgramInfo, step: int, steps: int, seed: int) -> Array:
    """The value of one input at one step, of the port's dtype and shape.

    Inputs get what they mean: frames of `seeded_frame`, normalised as (x - 0.5) / 0.5; a positive click per object in
    step 0; memory attended to from step 1 on; the words "a dog"; of the detector's examples one of each kind, around
    the ellipse of frame 0. Everything else is false, 0, or noise by the formula of seeded weights.
    """
    value = np.zeros(port.sides(), port.dtype)
    if port.name == "image" and len(port.sides()) == 4:
        value[:] = (seeded_frame(step, port.sides()[-1], seed) - 0.5) / 0.5
    elif port.name == "frame_index":
        value[...] = step
    elif port.name == "num_frames":
        value[...] = steps
    elif port.name == "attend_memory":
        value[...] = step > 0
    elif port.name == "token_ids":
        words = _WORDS[: port.sides()[-1]]
        value[:, : len(words)] = words
    elif port.name == "text_valid":
        value[:, : len(_WORDS)] = True
    elif port.name.startswith("prompt_"):
        value[...] = -1 if port.name.endswith("_labels") else 0
        value[:, 0] = 1 if port.name.endswith("_labels") else _example(port)
    elif port.name == "point_labels":
        value[...] = -1
        if step == 0:
            value[:, 0] = 1
    elif port.name == "point_coords":
        size = _image_size(program)
        for number, places in enumerate(value):
            places[0] = ((_FIRST_CLICK[0] + _CLICK_SHIFT * number) % 1.0 * size, _FIRST_CLICK[1] * size)
    elif np.issubdtype(value.dtype, np.floating):
        value[...] = seeded_tensor(f"{program.name}/{step}/{port.name}", port.sides(), seed)
    return value


def _example(port: PortInfo) -> Array:
    """A box (centre x, centre y, width, height), a point, or a mask of the upper left quarter."""
    if len(port.sides()) == 4:
        mask = np.zeros(port.sides()[2:], np.float32)
        mask[: port.sides()[2] // 2, : port.sides()[3] // 2] = 1
        return mask
    return np.array((*_FIRST_CLICK, 0.24, 0.18)[: port.sides()[-1]], np.float32)


def _image_size(program: ProgramInfo) -> int:
    sides = [port.sides()[-1] for port in program.inputs if port.name == "image"]
    return sides[0] if sides else 1


def summed_up(array: Array, *, program: str, step: int, output: str) -> tuple[OutputRecord, Samples]:
    """What is kept of one output: figures over all of it, and every n-th value.

    n is odd, because an even stride meets the same phase of a transposed convolution every time.
    """
    stride = -(-array.size // _SAMPLES) | 1
    wide = array.astype(np.float64)
    finite = wide[np.isfinite(wide)]
    record = OutputRecord(
        program=program,
        step=step,
        output=output,
        dtype=str(array.dtype),
        shape=tuple(array.shape),
        sha256=hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest(),
        magnitude=float(np.abs(finite).max(initial=0.0)),
        mean=float(finite.mean()) if finite.size else 0.0,
        not_finite=int(array.size - finite.size),
        stride=stride,
    )
    return record, np.ascontiguousarray(array.reshape(-1)[::stride])
