"""The PyTorch variants of a program without memory: eager with what is read, eager as the original runs it, and
compiled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import nn

from benchmarks.eager import BothNecks
from benchmarks.options import Options
from benchmarks.torch_compile import PATIENCE, compiled_program
from benchmarks.whole_program import EagerProgram
from benchmarks.work_variant import BOTH_NECKS, EAGER, TORCH_COMPILE, EagerVariant, WorkVariant
from samonnx.graph_session import Array
from samonnx.models.efficientsam3 import EfficientSAM3
from samonnx.programs.program import Program

__all__ = ["eager_variants"]


def eager_variants(
    program: Program,
    feeds: Mapping[str, Array],
    stored: Path,
    model: EfficientSAM3,
    read: Sequence[nn.Module],
    options: Options,
) -> dict[str, WorkVariant]:
    """By name. `stored`: a file that holds `feeds`, for processes of their own; `read`: the levels of the necks that
    the program reads, none for a program without the image encoder, whose original does nothing more."""
    eager = EagerProgram(program, feeds)

    def alone(how: str) -> tuple[str, ...]:
        where = (str(options.recipe.resolve()), program.name, str(stored), str(options.threads))
        return ("program", how, *where, *options.checkpoint_arguments)

    # The process holds the whole model, whatever it runs: of a part without an image, its memory would say nothing.
    found: dict[str, WorkVariant] = {EAGER: EagerVariant(eager, alone("eager") if read else None)}
    if read:
        original = BothNecks(model, eager, read)
        found[BOTH_NECKS] = EagerVariant(original, more_flops=original.unread_flops())
    compiled = compiled_program(program, feeds)
    found[TORCH_COMPILE] = EagerVariant(compiled, alone("compiled"), trial=PATIENCE)
    return found
