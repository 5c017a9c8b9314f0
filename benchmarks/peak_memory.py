"""Peak resident memory of one variant alone in a fresh process, from its start to the end of a few steps.

python -m benchmarks.peak_memory graph ENGINE GRAPH FEEDS.npz THREADS
python -m benchmarks.peak_memory track eager|compiled RECIPE LENGTH SEED THREADS [CHECKPOINT]
python -m benchmarks.peak_memory program eager|compiled RECIPE PROGRAM FEEDS.npz THREADS [CHECKPOINT]

Everything is counted: the interpreter, the engine's libraries, loading the weights, the inputs. PyTorch variants load
the whole model, whatever part of it they run; compiled ones count the compilation as well.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from samonnx.errors import SamonnxError

__all__ = ["peak_memory_of", "peak_of_this_process"]

STEPS = 2


def peak_memory_of(arguments: Sequence[str], limit: float | None = None) -> int:
    """Bytes, of a child process with these arguments (see the module docstring). Raises SamonnxError if it fails, or
    takes longer than `limit` seconds; all that it started is ended then."""
    command = [sys.executable, "-m", "benchmarks.peak_memory", *arguments]
    child = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
        start_new_session=True,
    )
    try:
        output, errors = child.communicate(timeout=limit)
    except BaseException as error:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise SamonnxError(f"not ready after {limit:.0f} s") from None
        raise
    if child.returncode:
        reason = next((line for line in reversed(errors.splitlines()) if line.strip()), "it said nothing")
        raise SamonnxError(
            f"{reason}\n(the process that measures peak memory ended with code {child.returncode}: "
            f"{' '.join(command)})\n{errors[-2000:]}"
        )
    return int(output.splitlines()[-1])


def peak_of_this_process() -> int:
    """The kernel's high-water mark of this program's own pages. `ru_maxrss` survives `exec` on Linux, so that a child
    would report at least what its parent had when it forked."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # not Linux
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _run_graph(engine: str, path: str, feeds: str, threads: str) -> None:
    import numpy as np

    from benchmarks.engines import Engine, open_graph

    with np.load(feeds) as stored:
        step = open_graph(Engine(engine), Path(path), dict(stored), int(threads))
    for _ in range(STEPS):
        step.run()


def _run_track(how: str, recipe: str, length: str, seed: str, threads: str, checkpoint: str = "") -> None:
    from benchmarks.eager import EagerStep
    from benchmarks.recipe_model import load_model
    from benchmarks.situation import make_situation
    from benchmarks.straightforward import StraightforwardStep, straightforward_inputs
    from benchmarks.torch_compile import CompiledModule

    loaded, model = load_model(recipe, threads, checkpoint)
    situation = make_situation(model, loaded.memory, int(length), int(seed))
    step: Callable[[], object]
    if how == "compiled":
        step = CompiledModule(StraightforwardStep(model, situation), straightforward_inputs(situation), ())
    else:
        step = EagerStep(model, situation)
    for _ in range(STEPS):
        step()


def _run_program(how: str, recipe: str, name: str, feeds: str, threads: str, checkpoint: str = "") -> None:
    import numpy as np

    from benchmarks.recipe_model import load_model
    from benchmarks.torch_compile import compiled_program
    from benchmarks.tracker_maps import tracker_maps_program
    from benchmarks.whole_program import EagerProgram
    from samonnx.models.efficientsam3 import EfficientSAM3
    from samonnx.programs.recipe_programs import recipe_programs

    loaded, model = load_model(recipe, threads, checkpoint)
    maps = (tracker_maps_program(model),) if isinstance(model, EfficientSAM3) else ()
    known = (*recipe_programs(model, loaded), *maps)
    program = next(program for program in known if program.name == name)
    with np.load(feeds) as stored:
        given = dict(stored)
    step = compiled_program(program, given) if how == "compiled" else EagerProgram(program, given)
    for _ in range(STEPS):
        step()


_KINDS: Mapping[str, Callable[..., None]] = MappingProxyType(
    {"graph": _run_graph, "track": _run_track, "program": _run_program}
)


def _main(arguments: Sequence[str]) -> int:
    kind, *rest = arguments
    _KINDS[kind](*rest)
    sys.stdout.write(f"{peak_of_this_process()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
