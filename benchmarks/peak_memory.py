"""Peak resident memory of one variant alone in a fresh process, from its start to the end of a few steps.

python -m benchmarks.peak_memory graph GRAPH FEEDS.npz THREADS
python -m benchmarks.peak_memory eager-track RECIPE LENGTH SEED THREADS [CHECKPOINT]
python -m benchmarks.peak_memory eager-program RECIPE PROGRAM FEEDS.npz THREADS [CHECKPOINT]

Everything is counted: the interpreter, the engine's libraries, loading the weights, the inputs. Eager variants load the
whole model, whatever part of it they run.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from samonnx.errors import SamonnxError

__all__ = ["peak_memory_of"]

STEPS = 2


def peak_memory_of(arguments: Sequence[str]) -> int:
    """Bytes, of a child process with these arguments (see the module docstring). Raises SamonnxError if it fails."""
    command = [sys.executable, "-m", "benchmarks.peak_memory", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    if done.returncode:
        raise SamonnxError(
            f"the process that measures peak memory ended with code {done.returncode}: {' '.join(command)}\n"
            f"{done.stderr[-2000:]}"
        )
    return int(done.stdout.splitlines()[-1])


def _peak_of_this_process() -> int:
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


def _run_graph(path: str, feeds: str, threads: str) -> None:
    import numpy as np

    from benchmarks.graph_step import GraphStep

    with np.load(feeds) as stored:
        step = GraphStep(Path(path), dict(stored), int(threads))
    for _ in range(STEPS):
        step.run()


def _run_eager_track(recipe_path: str, length: str, seed: str, threads: str, checkpoint: str = "") -> None:
    from typing import cast

    import torch

    from benchmarks.eager import EagerStep
    from benchmarks.situation import make_situation
    from samonnx.build_model import build_model
    from samonnx.models.efficientsam3 import EfficientSAM3
    from samonnx.recipe import load_recipe

    torch.set_num_threads(int(threads))
    recipe = load_recipe(Path(recipe_path))
    built = build_model(recipe, Path(checkpoint) if checkpoint else None)
    model = cast(EfficientSAM3, built.module)
    step = EagerStep(model, make_situation(model, recipe.memory, int(length), int(seed)))
    for _ in range(STEPS):
        step()


def _run_eager_program(recipe_path: str, name: str, feeds: str, threads: str, checkpoint: str = "") -> None:
    from typing import cast

    import numpy as np
    import torch

    from benchmarks.whole_program import EagerProgram
    from samonnx.build_model import build_model
    from samonnx.models.efficientsam3 import EfficientSAM3
    from samonnx.programs.recipe_programs import recipe_programs
    from samonnx.recipe import load_recipe

    torch.set_num_threads(int(threads))
    recipe = load_recipe(Path(recipe_path))
    model = cast(EfficientSAM3, build_model(recipe, Path(checkpoint) if checkpoint else None).module)
    programs = {program.name: program for program in recipe_programs(model, recipe)}
    with np.load(feeds) as stored:
        step = EagerProgram(programs[name], dict(stored))
    for _ in range(STEPS):
        step()


_KINDS: Mapping[str, Callable[..., None]] = MappingProxyType(
    {"graph": _run_graph, "eager-track": _run_eager_track, "eager-program": _run_eager_program}
)


def _main(arguments: Sequence[str]) -> int:
    kind, *rest = arguments
    _KINDS[kind](*rest)
    sys.stdout.write(f"{_peak_of_this_process()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
