"""The checkpoints of a recipe: one file with all of the model, or one for each part of a model that is made of several.

--checkpoint sam_xmem.pth                             keys as the module has them, sam.* and xmem.*
--checkpoint sam=sam_vit_b.pth --checkpoint xmem=XMem.pth      each file's keys get its part's name in front
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from torch import Tensor

from samonnx.checkpoint import CheckpointError, read_checkpoint
from samonnx.recipe import WeightsSpec

__all__ = ["Checkpoint", "CheckpointTensors", "checkpoint_argument", "read_checkpoint_files"]

Checkpoint = Path | Mapping[str, Path]
"""A file, or files by the name of the part (submodule) that each is for."""


@dataclass(frozen=True)
class CheckpointTensors:
    """`tensors` under the names of the whole module; `files`, without their folders, for messages and reports; `parts`
    that have a file of their own, none where one file is for all."""

    tensors: Mapping[str, Tensor]
    files: str
    parts: tuple[str, ...] = ()

    def check_parts(self, there: Collection[str], model: str) -> None:
        """Raise CheckpointError unless the files are for the parts that the model has, all of them.

        Real weights in one part and formulas in another would look like a result, and be none."""
        if not self.parts:
            return
        for part in self.parts:
            if part not in there:
                raise CheckpointError(
                    f"--checkpoint {part}=…: {model} has no part {part!r}; it has: {', '.join(there)}. For a file with "
                    "all of it, give the path alone"
                )
        missing = [part for part in there if part not in self.parts]
        if missing:
            raise CheckpointError(
                f"there is a checkpoint for {', '.join(self.parts)}, but none for {', '.join(missing)}: give "
                f"--checkpoint {missing[0]}=FILE too (or none at all, for seeded weights)"
            )


def checkpoint_argument(values: Sequence[str]) -> Checkpoint | None:
    """What `--checkpoint` says, given any number of times: PATH once, or PART=PATH for each part.

    A path with an equals sign in it may be given as ./PATH. Raises CheckpointError.
    """
    parts: dict[str, Path] = {}
    for value in values:
        named = re.fullmatch(r"([A-Za-z_]\w*)=(.+)", value)
        if named is None:
            if len(values) > 1:
                raise CheckpointError(
                    f"--checkpoint is given {len(values)} times, and {value!r} does not say which part of the model it "
                    "is for; expected PART=PATH for each, such as sam=sam_vit_b.pth"
                )
            return Path(value)
        if named[1] in parts:
            raise CheckpointError(f"--checkpoint {named[1]}=… is given twice; expected one file for each part")
        parts[named[1]] = Path(named[2])
    return parts or None


def read_checkpoint_files(checkpoint: Checkpoint | None, spec: WeightsSpec) -> CheckpointTensors | None:
    """The tensors of `checkpoint`, or of the recipe's own; None without either. Raises CheckpointError."""
    if checkpoint is None and spec.checkpoint is not None:
        named = spec.checkpoint
        checkpoint = Path(named) if isinstance(named, str) else {part: Path(file) for part, file in named.items()}
    if checkpoint is None:
        return None
    if not isinstance(checkpoint, Mapping):
        return CheckpointTensors(read_checkpoint(checkpoint), checkpoint.name)
    tensors = {
        f"{part}.{name}": tensor for part, path in checkpoint.items() for name, tensor in read_checkpoint(path).items()
    }
    files = ", ".join(path.name for path in checkpoint.values())
    return CheckpointTensors(MappingProxyType(tensors), files, tuple(checkpoint))
