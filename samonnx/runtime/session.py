"""One program of an artifact folder, ready to run in ONNX Runtime; inputs are checked against the manifest first."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from samonnx.errors import SamonnxError
from samonnx.runtime.manifest import Manifest, PortInfo, ProgramInfo

__all__ = [
    "Array",
    "InputError",
    "Session",
    "SessionError",
    "check_inputs",
    "choose_target",
    "execution_providers",
    "short_provider_name",
]

Array = npt.NDArray[np.generic]

PREFERRED_TARGETS = ("ort-cpu", "onnx")


class SessionError(SamonnxError):
    """The graph cannot be opened or run: files missing or damaged, a target not compiled, an engine that refuses."""


class InputError(SamonnxError):
    """Inputs that the program does not take; the message lists all of them."""


class Session:
    """A program of an artifact, opened in ONNX Runtime.

    `folder` is the artifact folder; `target` is one that the manifest lists (by default `ort-cpu` if present, then
    `onnx`); `threads` limits the threads inside an operation (default: the engine's choice); `providers` are ONNX
    Runtime execution providers, as in `execution_providers` (default: the CPU). Raises ManifestError and SessionError.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        program: str = "track",
        *,
        target: str | None = None,
        threads: int | None = None,
        providers: Sequence[str] | None = None,
        manifest: Manifest | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.manifest = Manifest.load(folder) if manifest is None else manifest
        self.program: ProgramInfo = self.manifest.program(program)
        self.target = choose_target(self.program, target)
        self._engine = _open(self.folder, self.manifest, self.program, self.target, threads, providers)

    @property
    def engine(self) -> onnxruntime.InferenceSession:
        """The ONNX Runtime session, for I/O binding and profiling."""
        return self._engine

    def run(self, inputs: Mapping[str, npt.ArrayLike], *, release: bool = False) -> dict[str, Array]:
        """Run once: every input of the program by name, every output by name.

        Arrays need not be contiguous; dtypes and shapes must be the manifest's. `release` gives the engine's working
        memory back afterwards instead of keeping it for the next call: for programs that run seldom beside others.
        Raises InputError, SessionError.
        """
        arrays = {name: np.asarray(value) for name, value in inputs.items()}
        check_inputs(self.program, arrays)
        names = [port.name for port in self.program.outputs]
        # np.ascontiguousarray would turn a scalar into a vector of one
        feed = {name: array if array.flags.c_contiguous else array.copy(order="C") for name, array in arrays.items()}
        try:
            values = self._engine.run(names, feed, _releasing() if release else None)
        except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
            raise SessionError(f"program {self.program.name!r} failed in ONNX Runtime: {error}") from error
        return dict(zip(names, values, strict=True))


def _releasing() -> onnxruntime.RunOptions:
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def choose_target(program: ProgramInfo, target: str | None) -> str:
    """The target asked for, or the best one there is. SessionError lists what the artifact holds."""
    there = ", ".join(sorted(program.files)) or "none"
    if target is None:
        for preferred in PREFERRED_TARGETS:
            if preferred in program.files:
                return preferred
        raise SessionError(
            f"program {program.name!r} has no graph for {' or '.join(PREFERRED_TARGETS)}, only for: {there}. "
            f"Name one as target, or compile with --target {PREFERRED_TARGETS[0]}"
        )
    if target not in program.files:
        raise SessionError(
            f"program {program.name!r} was not compiled for target {target!r}; it has: {there}. "
            f"Compile the recipe with --target {target}"
        )
    return target


def execution_providers(names: Sequence[str]) -> list[str]:
    """ONNX Runtime's names of execution providers, in the same order.

    They may be given in full (`CUDAExecutionProvider`) or short (`cuda`, `tensorrt`, `coreml`): the full name in small
    letters without its ending. Raises SessionError for one that this build of ONNX Runtime does not have.
    """
    there = onnxruntime.get_available_providers()
    known = {short_provider_name(name): name for name in (*onnxruntime.get_all_providers(), *there)}
    found = []
    for name in [names] if isinstance(names, str) else names:
        full = known.get(short_provider_name(name), name)
        if full not in there:
            asked = repr(name) if full == name else f"{name!r} ({full})"
            remedy = "; install the package of ONNX Runtime that has it" if full in known.values() else ""
            present = ", ".join(f"{short_provider_name(provider)} ({provider})" for provider in there)
            raise SessionError(
                f"execution provider {asked} is not in this build of ONNX Runtime; it has: {present}{remedy}"
            )
        found.append(full)
    return list(dict.fromkeys(found))


def short_provider_name(provider: str) -> str:
    """`CUDAExecutionProvider`, or `cuda` already -> `cuda`."""
    return provider.lower().removesuffix("executionprovider")


def check_inputs(program: ProgramInfo, arrays: Mapping[str, Array]) -> None:
    """Raise InputError with one line for each input that is missing, unknown, or of another dtype or shape."""
    ports = {port.name: port for port in program.inputs}
    problems = [f"{name}: the program has no such input" for name in arrays if name not in ports]
    symbols: dict[str, int] = {}
    for name, port in ports.items():
        if name not in arrays:
            problems.append(f"{name}: missing, expected {port}" + (f" ({port.meaning})" if port.meaning else ""))
        elif not _matches(port, arrays[name], symbols):
            array = arrays[name]
            known = ", ".join(f"{symbol} is {symbols[symbol]}" for symbol in port.shape if symbol in symbols)
            said = f" ({known}, as in the inputs before it)" if known else ""
            problems.append(f"{name}: expected {port}{said}, got {array.dtype} {list(array.shape)}")
    if problems:
        if any("no such input" in problem for problem in problems):
            problems.append("inputs are: " + ", ".join(ports))
        raise InputError(f"program {program.name!r}: " + "; ".join(problems))


def _matches(port: PortInfo, array: Array, symbols: dict[str, int]) -> bool:
    """Symbolic dimensions that are met for the first time are noted in `symbols`."""
    if array.dtype != np.dtype(port.dtype) or len(array.shape) != len(port.shape):
        return False
    new = {side: size for side, size in zip(port.shape, array.shape, strict=True) if isinstance(side, str)}
    expected = [side if isinstance(side, int) else symbols.get(side, new[side]) for side in port.shape]
    if list(array.shape) != expected or 0 in new.values():
        return False
    symbols |= {str(side): size for side, size in new.items() if side not in symbols}
    return True


def _open(
    folder: Path,
    manifest: Manifest,
    program: ProgramInfo,
    target: str,
    threads: int | None,
    providers: Sequence[str] | None,
) -> onnxruntime.InferenceSession:
    graph = folder / program.files[target]
    if not graph.is_file():
        raise SessionError(
            f"{graph} is missing: the manifest lists it for program {program.name!r}, target {target!r}. "
            f"Copy the whole folder, or compile the recipe again"
        )
    _check_weights(folder, manifest)
    if threads is not None and threads < 1:
        raise SessionError(f"threads is {threads}; expected 1 or more")
    chosen = execution_providers(providers or ["cpu"])
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        engine = onnxruntime.InferenceSession(str(graph), options, providers=chosen)
    except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
        raise SessionError(f"ONNX Runtime {onnxruntime.__version__} cannot open {graph}: {error}") from error
    lacking = [name for name in chosen if name not in engine.get_providers()]
    if lacking:  # the engine says so in its log only, and runs everything on the CPU
        raise SessionError(
            f"ONNX Runtime could not start the execution provider {lacking[0]}; is its device there, and are its "
            f"libraries? It would run {graph.name} on: {', '.join(engine.get_providers())}"
        )
    found = {node.name for node in engine.get_inputs()}
    listed = {port.name for port in program.inputs}
    if found != listed:
        odd = ", ".join(sorted(found ^ listed))
        raise SessionError(
            f"{graph} is not the graph that the manifest describes: they differ in the inputs {odd}. "
            f"Files of two compiles are mixed; copy the whole folder, or compile the recipe again"
        )
    return engine


def _check_weights(folder: Path, manifest: Manifest) -> None:
    """A short weights file would otherwise become a crash or garbage deep inside the engine."""
    path = folder / manifest.weights.file
    if not path.is_file():
        raise SessionError(
            f"weights file {path} is missing; the graphs need it beside them ({manifest.weights.bytes} bytes). "
            f"Copy the whole folder, or compile the recipe again"
        )
    size = path.stat().st_size
    if size != manifest.weights.bytes:
        state = "truncated" if size < manifest.weights.bytes else "of another compile"
        raise SessionError(
            f"weights file {path} is {state}: it has {size} bytes, the manifest says {manifest.weights.bytes}. "
            f"Copy it again, or compile the recipe again"
        )
