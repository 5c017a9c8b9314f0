"""Reading a checkpoint file: tensors only, under the names that the models use.

    file ─► torch.load(weights_only=True) or safetensors ─► wrappers taken off ─► names normalised ─► {name: tensor}

A pickle can carry code. The restricted loader of torch refuses it before anything runs, and there is no way round it
here: a checkpoint from the internet is data, or it is not read.
"""

from __future__ import annotations

import errno
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from samonnx.errors import SamonnxError

__all__ = ["CheckpointError", "normalised_names", "read_checkpoint"]

_SUFFIXES = (".pth", ".pt", ".safetensors")
_WRAPPERS = ("model", "state_dict", "model_state_dict")
_DEEPEST_WRAPPING = 4
_SHOWN = 8
_ZIP_MAGIC = b"PK\x03\x04"


class CheckpointError(SamonnxError):
    """The file is not a checkpoint that can be read, or must not be read."""


def read_checkpoint(path: str | Path) -> Mapping[str, torch.Tensor]:
    """All tensors of a `.pth`, `.pt` or `.safetensors` file, in file order, under normalised names.

    Wrappers `{"model": …}` and `{"state_dict": …}` are taken off, also nested ones; names are changed by
    `normalised_names`. Large files are mapped, not copied, where their format allows it.

    Raises CheckpointError: no such file, another suffix, damaged or cut-off file, a pickle that wants to run code
    (refused, nothing is executed), anything but a flat mapping of dense tensors, two names that become one.
    """
    path = Path(path)
    if path.suffix not in _SUFFIXES:
        found = repr(path.suffix) if path.suffix else "no suffix"
        raise CheckpointError(f"{path}: a checkpoint ends in {', '.join(_SUFFIXES)}, found {found}")
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise CheckpointError(f"checkpoint {path} {what}; give the path of a {', '.join(_SUFFIXES)} file")
    loaded = _load_safetensors(path) if path.suffix == ".safetensors" else _load_torch(path)
    tensors = _checked_tensors(_unwrapped(loaded, path), path)
    return MappingProxyType(_renamed(tensors, path))


def _load_safetensors(path: Path) -> object:
    try:
        return load_file(path, device="cpu")
    except SafetensorError as error:
        raise CheckpointError(_damaged(path, str(error))) from error
    except OSError as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error}") from error


def _load_torch(path: Path) -> object:
    try:
        with path.open("rb") as file:
            is_zip = file.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC
        with warnings.catch_warnings():
            # A remark on pickle protocols; what cannot be read is refused below anyway.
            warnings.simplefilter("ignore")
            # Only the zip format of torch ≥ 1.6 can be mapped; the older one has to be copied.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)  # noqa: TID251  # the one place
    except pickle.UnpicklingError as error:
        raise CheckpointError(_refusal(path, str(error))) from error
    except OSError as error:
        # torch reports some cut-off zip files as EINVAL, from seeking before their beginning.
        if error.errno == errno.EINVAL:
            raise CheckpointError(_damaged(path, "its table of contents is not where it should be")) from error
        raise CheckpointError(f"checkpoint {path} cannot be read: {error}") from error
    except MemoryError:
        raise
    except Exception as error:
        # A broken file makes torch fail in a dozen ways (EOFError, KeyError, struct.error, RuntimeError, …).
        first_line = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise CheckpointError(_damaged(path, first_line)) from error


def _refusal(path: Path, text: str) -> str:
    """What the restricted unpickler met: a name it may not call, or bytes that are no pickle of tensors."""
    met = re.search(r"(?:GLOBAL|class) ([A-Za-z_][\w.]*) (?:was not|whose module)", text)
    if met:
        return (
            f"checkpoint {path} refused: it is a pickle that wants to call `{met[1]}`, which is code, not weights. "
            f"Nothing was executed. Save the bare state dict (torch.save(model.state_dict(), …)) or use .safetensors"
        )
    reason = re.search(r"Unsupported operand \d+|WeightsUnpickler error: *\S[^\n]*", text)
    return (
        f"checkpoint {path} refused: it is damaged, or a pickle of something else than a state dict"
        f" ({reason[0][:120] if reason else 'not understood by the restricted loader'}). Nothing was executed. "
        f"Download it again, or save it with torch.save(model.state_dict(), …)"
    )


def _damaged(path: Path, reason: str) -> str:
    size = path.stat().st_size
    return f"checkpoint {path} ({size:,} bytes) is damaged or cut off: {reason}. Download or save it again"


def _unwrapped(loaded: object, path: Path) -> Mapping[object, object]:
    """The innermost mapping inside wrappers such as {"state_dict": {"model": …}, "epoch": 3}."""
    trail = "the file"
    for _ in range(_DEEPEST_WRAPPING + 1):
        if not isinstance(loaded, Mapping):
            raise CheckpointError(
                f"checkpoint {path}: {trail} holds {_describe(loaded)}, expected a mapping of names to tensors"
            )
        wrappers = [name for name in _WRAPPERS if isinstance(loaded.get(name), Mapping)]
        if not wrappers:
            return loaded
        if len(wrappers) > 1:
            raise CheckpointError(
                f"checkpoint {path}: {trail} holds several state dicts ({', '.join(wrappers)}); "
                f"save the one that is meant to a file of its own"
            )
        loaded, trail = loaded[wrappers[0]], f"{trail} → {wrappers[0]!r}"
    raise CheckpointError(f"checkpoint {path}: more than {_DEEPEST_WRAPPING} wrappers in each other ({trail})")


def _checked_tensors(mapping: Mapping[object, object], path: Path) -> dict[str, torch.Tensor]:
    if not mapping:
        raise CheckpointError(f"checkpoint {path} holds no tensors at all")
    tensors: dict[str, torch.Tensor] = {}
    wrong: list[str] = []
    for key, value in mapping.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            wrong.append(f"{key!r}: {_describe(value)}")
        elif value.layout != torch.strided or value.is_quantized or value.is_meta:
            wrong.append(f"{key!r}: a tensor that is not dense ({value.layout}, {value.dtype}, {value.device})")
        else:
            tensors[key] = value
    if wrong:
        raise CheckpointError(
            f"checkpoint {path}: expected a mapping of names to tensors, found {len(wrong)} other entries: "
            f"{_some(wrong)}"
        )
    return tensors


def _renamed(tensors: Mapping[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    names = normalised_names(tuple(tensors))
    sources: dict[str, list[str]] = {}
    for old, new in names.items():
        sources.setdefault(new, []).append(old)
    conflicts = [f"{' and '.join(olds)} → {new}" for new, olds in sources.items() if len(olds) > 1]
    if conflicts:
        raise CheckpointError(
            f"checkpoint {path}: several entries get the same name after normalisation: {_some(conflicts)}. "
            f"Remove the ones that are not meant"
        )
    return {new: tensors[old] for old, new in names.items()}


def normalised_names(names: tuple[str, ...]) -> dict[str, str]:
    """Old name → the name in the released video model (`detector.*`, `tracker.*`), for all names of one file.

    - `module.` in front (data-parallel training) goes, as often as it stands there;
    - `student_trunk.` goes, wherever it stands between dots (distillation);
    - `inst_interactive_predictor.model.X` (the image model's own tracker) becomes `tracker.X`;
    - if then nothing starts with `detector.` or `tracker.` except by the rule before, and something starts with
      `backbone.`, all other names get `detector.` in front.
    """
    plain = {name: re.sub(r"(^|\.)student_trunk\.", r"\1", re.sub(r"^(?:module\.)+", "", name)) for name in names}
    interactive = re.compile(r"^(?:detector\.)?inst_interactive_predictor\.model\.")
    rest = [name for name in plain.values() if not interactive.match(name)]
    is_bare = any(n.startswith("backbone.") for n in rest) and not any(
        n.startswith(("detector.", "tracker.")) for n in rest
    )

    def final(name: str) -> str:
        if interactive.match(name):
            return interactive.sub("tracker.", name)
        return f"detector.{name}" if is_bare else name

    return {old: final(new) for old, new in plain.items()}


def _describe(value: object) -> str:
    kind = type(value).__name__
    return f"a {kind}" if isinstance(value, (torch.Tensor, Mapping)) else f"{kind} {value!r}"[:60]


def _some(lines: list[str]) -> str:
    more = f" … and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    return "; ".join(lines[:_SHOWN]) + more
