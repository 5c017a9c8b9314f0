"""Writes a graph whole or not at all: aside first, then into place; large weights into a file of their own."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import onnx_ir as ir

from samonnx.optimize_result import OptimizeError
from samonnx.result_file import ResultFileError

__all__ = ["check_destination", "save_model"]

INLINE_LIMIT = 1 << 30
"""Bytes of weights above which they go into `<name>.data` beside the graph: protobuf stops at 2 GiB."""

_SMALL = 1024  # tensors below stay in the graph in any case


def check_destination(source: Path, destination: Path) -> None:
    """Raises OptimizeError for a place that nothing can be written to, before any work is done."""
    folder = destination.absolute().parent
    if not folder.is_dir():
        raise OptimizeError(f"cannot write {destination}: folder {folder} does not exist")
    if destination.is_dir():
        raise OptimizeError(f"cannot write {destination}: it is a folder; give the name of a file")
    if source.is_file() and destination.exists() and destination.samefile(source):
        data = destination.with_name(destination.name + ".data")
        if source.stat().st_size >= INLINE_LIMIT or data.exists():
            raise OptimizeError(
                f"cannot write over {source}: its weights are large or in files beside it, and two files cannot be "
                "replaced at once; give -o another name"
            )


def save_model(model: ir.Model, destination: Path) -> tuple[Path, ...]:
    """Writes `destination` and, above `INLINE_LIMIT` bytes of weights, `<destination>.data`; returns what was written.
    Nothing is left behind when it fails.

    Raises ResultFileError.
    """
    size = sum(v.const_value.nbytes for g in model.graphs() for v in g.initializers.values() if v.const_value)
    data = f"{destination.name}.data" if size > INLINE_LIMIT else None
    folder = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", dir=destination.absolute().parent))
    try:
        aside = folder / destination.name
        copy = model.clone()  # saving may put other tensors into the graph
        if data is None:
            _with_weights_inside(copy)
            ir.save(copy, aside)
        else:
            ir.save(copy, aside, external_data=data, size_threshold_bytes=_SMALL)
        written = [name for name in (data, destination.name) if name is not None and (folder / name).exists()]
        for name in written:  # weights first: a graph never refers to what is not there
            os.replace(folder / name, destination.with_name(name))
        return tuple(destination.with_name(name) for name in reversed(written))
    except OSError as error:
        raise ResultFileError(f"cannot write {destination}: {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _with_weights_inside(model: ir.Model) -> None:
    """References to files beside the source would lead nowhere from another folder."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, ir.ExternalTensor):
                value.const_value = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=value.name)
