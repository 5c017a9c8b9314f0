"""Write an artifact folder: graphs, one weights file, the manifest; complete and checked, or not at all.

    {program: {target: ir.Model}} + Manifest  ─►  DIRECTORY/manifest.json
                                                            weights.bin
                                                            recipe.json
                                                            verification.json
                                                            track.onnx  track.ort-cpu.onnx  track@first.onnx …

Two runs on the same input give the same bytes (but for verification.json, which holds measurements). Everything is
planned in memory first (graphs without their weights are small), so that the size is known before the first byte is
written.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import onnx_ir as ir

from samonnx.errors import SamonnxError
from samonnx.folder_exchange import exchanged_folder
from samonnx.graph_file import external_tensors, portable_clone, serialized
from samonnx.runtime.manifest import MANIFEST_NAME, Manifest, PortInfo
from samonnx.weights_file import WEIGHTS_NAME, WeightsLayout, lay_out

__all__ = ["RECIPE_NAME", "VERIFICATION_NAME", "EmitError", "Verified", "emit", "graph_file_name"]

RECIPE_NAME = "recipe.json"
"""The recipe with all that it extends and all overrides, as `load_recipe` reads it."""

VERIFICATION_NAME = "verification.json"
"""The errors that were measured when the artifact was made; see `samonnx.verification_record`."""

Programs = Mapping[str, Mapping[str, ir.Model]]

# Whole blocks on disk, and the folder itself.
_OVERHEAD = 1 << 20
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_@.+-]*")


class EmitError(SamonnxError):
    """The artifact cannot be written; a previous one in its place is untouched."""


@dataclass(frozen=True)
class Verified:
    """What is known once the graphs are verified: the manifest, and the text of verification.json."""

    manifest: Manifest
    measured: str


@dataclass(frozen=True)
class _Plan:
    """Everything that will be in the folder."""

    layout: WeightsLayout
    graphs: Mapping[str, bytes]
    """File name → content."""
    manifest: Manifest
    recipe: bytes | None

    @property
    def size(self) -> int:
        return self.layout.size + sum(len(content) for content in self.graphs.values())


def graph_file_name(program: str, target: str) -> str:
    """`track.onnx` for the target `onnx`, `track.ort-cpu.onnx` for any other."""
    return f"{program}.onnx" if target == "onnx" else f"{program}.{target}.onnx"


def emit(
    programs: Programs,
    manifest: Manifest,
    directory: Path,
    verified: Callable[[], Verified] | None = None,
    recipe: str | None = None,
) -> Manifest:
    """Write the artifact folder `directory`, in the place of an earlier artifact if there is one.

    `manifest` describes the programs; the files' names and the size of the weights file are filled in here. Returns
    the manifest as written. `verified` is asked once graphs and weights are on disk, beside the earlier artifact: so
    verification may go on while they are written, and if it raises, nothing is put in place.
    `recipe` is the text of recipe.json. The models are not changed.

    Raises EmitError when manifest and models contradict each other, when `directory` holds something else than an
    artifact, when a written graph fails the ONNX checker; FolderError (also a SamonnxError) when the disk is full.
    Whatever is raised, KeyboardInterrupt included, an earlier artifact is whole and no other file is left.
    """
    directory = Path(directory)
    _check_replaceable(directory)
    _check_described(programs, manifest)
    plan = _plan(programs, manifest, None if recipe is None else recipe.encode())
    with exchanged_folder(directory, plan.size + _OVERHEAD) as partial:
        plan.layout.write(partial / WEIGHTS_NAME)
        for name, content in plan.graphs.items():
            _write(partial / name, content)
        if plan.recipe is not None:
            _write(partial / RECIPE_NAME, plan.recipe)
        _check_written(partial, plan)
        last = plan.manifest
        if verified is not None:
            known = verified()
            last = _completed(known.manifest, programs, plan.layout)
            _check_described(programs, last)
            _write(partial / VERIFICATION_NAME, known.measured.encode())
        _write(partial / MANIFEST_NAME, last.to_json().encode())
    return last


def _plan(programs: Programs, manifest: Manifest, recipe: bytes | None) -> _Plan:
    clones = {
        graph_file_name(program, target): portable_clone(model, program)
        for program, targets in sorted(programs.items())
        for target, model in sorted(targets.items())
    }
    layout = lay_out(pair for clone in clones.values() for pair in external_tensors(clone))
    graphs = {name: serialized(clone, layout) for name, clone in clones.items()}
    return _Plan(layout, graphs, _completed(manifest, programs, layout), recipe)


def _completed(manifest: Manifest, programs: Programs, layout: WeightsLayout) -> Manifest:
    """With the names of the files and the size of the weights."""
    files = {
        program: {target: graph_file_name(program, target) for target in sorted(targets)}
        for program, targets in programs.items()
    }
    return replace(
        manifest,
        weights=replace(manifest.weights, file=WEIGHTS_NAME, bytes=layout.size),
        programs=tuple(replace(program, files=files[program.name]) for program in manifest.programs),
    )


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _check_written(folder: Path, plan: _Plan) -> None:
    """What is on disk is what was planned, and every graph, with the weights it refers to, passes the checker."""
    sizes = {WEIGHTS_NAME: plan.layout.size} | {name: len(content) for name, content in plan.graphs.items()}
    for name, size in sizes.items():
        found = (folder / name).stat().st_size
        if found != size:
            raise EmitError(f"{name} has {found:,} bytes on disk, {size:,} were written; check the disk")
    for name in plan.graphs:
        try:
            onnx.checker.check_model(str(folder / name), full_check=False)
        except onnx.checker.ValidationError as error:
            raise EmitError(f"{name} fails the ONNX checker, so nothing was put in place: {error}") from error


def _check_replaceable(directory: Path) -> None:
    """A folder is replaced only if all that would be lost can be compiled again."""
    if not directory.name or directory.resolve() == Path.cwd():
        raise EmitError(f"cannot write an artifact as {directory}: it is where you stand; name a folder of its own")
    if not directory.exists():
        return
    if not directory.is_dir():
        raise EmitError(f"{directory} is a file; expected the name of a folder for the artifact")
    content = sorted(entry.name for entry in directory.iterdir())
    if not content:
        return
    if not _is_artifact(directory):
        raise EmitError(
            f"{directory} holds files ({', '.join(content[:5])}), but no {MANIFEST_NAME} of samonnx, so it is not "
            f"replaced. Choose another --output, or remove the folder yourself"
        )
    ours = (MANIFEST_NAME, WEIGHTS_NAME, RECIPE_NAME, VERIFICATION_NAME)
    foreign = [name for name in content if name not in ours and not name.endswith(".onnx")]
    if foreign:
        raise EmitError(
            f"{directory} is an artifact that also holds {', '.join(foreign[:5])}, which replacing it would delete. "
            f"Move them elsewhere, or choose another --output"
        )


def _is_artifact(directory: Path) -> bool:
    """Judged leniently, so that artifacts of other versions can be replaced; many tools write a manifest.json."""
    try:
        value = json.loads((directory / MANIFEST_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(value, dict) and "recipe_digest" in value


def _check_described(programs: Programs, manifest: Manifest) -> None:
    """The manifest's programs and ports are those of the models: a wrong description is worse than none."""
    problems: list[str] = []
    described = {program.name: program for program in manifest.programs}
    if set(described) != set(programs):
        problems.append(f"the manifest describes {sorted(described)}, the programs are {sorted(programs)}")
    for name, targets in sorted(programs.items()):
        problems.extend(
            f"{word!r} cannot be part of a file name" for word in (name, *targets) if not _PLAIN_NAME.fullmatch(word)
        )
        if not targets:
            problems.append(f"program {name!r} has no graph for any target")
        if name in described:
            for target, model in sorted(targets.items()):
                where = f"{name} ({target})"
                problems.extend(_port_problems(where, "input", described[name].inputs, model.graph.inputs))
                problems.extend(_port_problems(where, "output", described[name].outputs, model.graph.outputs))
    if problems:
        raise EmitError("manifest and graphs do not agree:\n" + "\n".join(f"  {problem}" for problem in problems))


def _port_problems(where: str, kind: str, ports: tuple[PortInfo, ...], values: Iterable[ir.Value]) -> list[str]:
    said = {port.name: str(port) for port in ports}
    found = {value.name or "": _spelled(value) for value in values}
    problems = [f"{where}: {kind} {name!r} is only in the manifest" for name in sorted(said.keys() - found)]
    problems += [f"{where}: {kind} {name!r} is only in the graph" for name in sorted(found.keys() - said)]
    problems += [
        f"{where}: {kind} {name!r} is {found[name]} in the graph, {said[name]} in the manifest"
        for name in sorted(said.keys() & found)
        if said[name] != found[name]
    ]
    return problems


def _spelled(value: ir.Value) -> str:
    """As `str(PortInfo)` has it: "float32 [1, 3]"."""
    dtype = "an unknown dtype" if value.dtype is None else str(value.dtype.numpy())
    if value.shape is None:
        return f"{dtype} of unknown shape"
    sides = ", ".join(str(side) if isinstance(side, int) else str(side.value) for side in value.shape)
    return f"{dtype} [{sides}]"
