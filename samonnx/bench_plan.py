"""Which graphs are timed on which execution providers.

Providers go by the short form of ONNX Runtime's names: `cpu` is CPUExecutionProvider, `tensorrt`
TensorrtExecutionProvider. A target called `ort-X` is made for the provider X; other targets run on any.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from samonnx.bench_arguments import OBJECTS, BenchArguments
from samonnx.bench_result import BenchError
from samonnx.runtime.manifest import Manifest, ProgramInfo, TargetInfo

__all__ = ["TRACKER", "Case", "make_plan", "provider_names"]

SUFFIX = "ExecutionProvider"
ELSEWHERE = ("AzureExecutionProvider",)
"""Providers that do not run graphs on this machine."""
ENGINES = ("any", "onnxruntime")
TRACKER = "Tracker"


@dataclass(frozen=True)
class Case:
    """One process that measures."""

    program: str
    target: str
    provider: str
    """Short name."""
    objects: tuple[int, ...] = ()
    """Empty: calls of the program. Otherwise frames of a Tracker with so many objects, one number after the other."""

    @property
    def name(self) -> str:
        """What is compared with others of that name."""
        return TRACKER if self.objects else self.program


def provider_names(reported: Sequence[str]) -> dict[str, str]:
    """Short name -> ONNX Runtime's name, of the providers that can run a graph here; `reported` as
    `onnxruntime.get_available_providers` gives them."""
    return {name.removesuffix(SUFFIX).lower(): name for name in reported if name not in ELSEWHERE}


def make_plan(manifest: Manifest, arguments: BenchArguments, present: Mapping[str, str]) -> tuple[Case, ...]:
    """Every case, those to be compared next to each other; the Tracker's last. `present` as `provider_names` gives it.

    Raises BenchError for what is not there, and ManifestError for a program that is not.
    """
    programs = [manifest.program(name) for name in arguments.programs] or list(manifest.programs)
    if not programs:
        raise BenchError(f"the artifact of recipe {manifest.recipe!r} has no programs; compile one with some")
    objects = _objects(arguments, programs, manifest)
    targets = _targets(manifest, arguments, programs)
    providers = _providers(arguments, present)
    cases = [
        Case(program.name, target, provider)
        for program in programs
        for target in targets
        if target in program.files
        for provider in providers
        if _runs_on(target, provider)
    ]
    if not cases:
        raise BenchError(
            f"nothing to time: none of the targets {', '.join(targets)} runs on {', '.join(providers)} "
            f"(a target ort-X is made for the provider X, others run on any)"
        )
    if objects:
        cases += [Case("track", case.target, case.provider, objects) for case in cases if case.program == "track"]
    return tuple(cases)


def _objects(arguments: BenchArguments, programs: Sequence[ProgramInfo], manifest: Manifest) -> tuple[int, ...]:
    if any(program.name == "track" for program in programs):
        if arguments.objects is None and manifest.xmem is not None:  # all objects share one call, and one memory
            return tuple(number for number in OBJECTS if number <= manifest.xmem.objects)
        return OBJECTS if arguments.objects is None else arguments.objects
    if arguments.objects:
        raise BenchError(
            f"--objects is about the program 'track', which is not among those to time: "
            f"{', '.join(program.name for program in programs)}. Leave --objects out, or add --program track "
            f"(if the artifact has it)"
        )
    return ()


def _targets(manifest: Manifest, arguments: BenchArguments, programs: Sequence[ProgramInfo]) -> list[str]:
    compiled = sorted({target for program in programs for target in program.files})
    possible = [target for target in compiled if manifest.targets.get(target, TargetInfo("any")).engine in ENGINES]
    for target in arguments.targets:
        if target not in compiled:
            raise BenchError(
                f"the programs {', '.join(program.name for program in programs)} were not compiled for target "
                f"{target!r}; there is: {', '.join(compiled) or 'none'}. Compile the recipe with --target {target}"
            )
        if target not in possible:
            raise BenchError(
                f"target {target!r} is made for the engine {manifest.targets[target].engine}, and this command times "
                f"ONNX Runtime; targets for that: {', '.join(possible) or 'none'}"
            )
    if not possible:
        raise BenchError(
            f"no target of this artifact is made for ONNX Runtime, which this command times; it has: "
            f"{', '.join(compiled) or 'none'}. Compile the recipe with --target onnx"
        )
    return list(arguments.targets) or possible


def _providers(arguments: BenchArguments, present: Mapping[str, str]) -> list[str]:
    for name in arguments.providers:
        if name not in present:
            raise BenchError(
                f"this build of ONNX Runtime has no execution provider {name!r}; present: {', '.join(present)}"
            )
    return list(arguments.providers) or list(present)


def _runs_on(target: str, provider: str) -> bool:
    kind, _, made_for = target.partition("-")
    return kind != "ort" or made_for in ("", provider)
