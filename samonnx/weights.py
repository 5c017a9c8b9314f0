"""Weights into a module: from a checkpoint, all or nothing, or by formula when there is none.

    checkpoint ─► compare names, shapes, dtypes, finiteness ─► problems? WeightsError with all of them
                                                            └► copy everything ─► WeightsReport with a digest

The digest depends on the weights alone: a module filled by formula, saved and loaded again has the same one.
"""

from __future__ import annotations

import difflib
import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from samonnx.checkpoint import CheckpointError, normalised_names, read_checkpoint
from samonnx.seeded import seeded_tensor
from samonnx.weights_report import ComponentWeights, Misfit, WeightsError, WeightsReport

__all__ = [
    "SEEDED_NOTE",
    "WHOLE_MODEL",
    "CheckpointError",
    "ComponentWeights",
    "Components",
    "Misfit",
    "WeightsError",
    "WeightsReport",
    "fill_seeded",
    "load_weights",
    "normalised_names",
    "read_checkpoint",
    "weights_digest",
]

Components = Mapping[str, tuple[str, ...]]
"""Component → the key prefixes that belong to it; where several fit a key, the longest decides."""

WHOLE_MODEL: Components = {"model": ("",)}
"""One component that takes in every key: for modules whose recipe does not tell parts apart."""

SEEDED_NOTE = "SEEDED WEIGHTS: the numbers are real, the masks are noise. Give --checkpoint PATH for a usable model."

_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def load_weights(
    module: nn.Module,
    tensors: Mapping[str, torch.Tensor],
    components: Components = WHOLE_MODEL,
    *,
    ignored_keys: Sequence[str] = (),
    file: str | None = None,
) -> WeightsReport:
    """Copy `tensors` (from `read_checkpoint`) into `module`, after everything has been checked.

    A checkpoint entry inside a component that the module does not know is *unexpected*, unless a glob of
    `ignored_keys` covers it (then: *unused*); an entry outside of all components is counted as not used. float16,
    bfloat16 and float64 become the module's dtype, and the report says so. Integer and boolean buffers
    (`num_batches_tracked`) are loaded if they are there, and not missed otherwise. `file`, the checkpoint's name
    without its folder, appears in messages and in the report.

    Raises WeightsError with all problems at once: missing, unexpected, mis-shaped, not finite. The module is
    untouched then.
    """
    state = _state_of(module, components)
    unused = {key for key in tensors if key not in state and any(fnmatchcase(key, glob) for glob in ignored_keys)}
    compared = tuple(_compare(name, components, state, tensors, unused) for name in components)
    report = WeightsReport(
        source="checkpoint",
        file=file,
        components=compared,
        not_used=sum(_owner(key, components) is None for key in tensors),
    )
    if report.problems:
        raise WeightsError.from_report(report)

    matched = [key for component in compared for key in component.matched]
    conversions = Counter((tensors[key].dtype, state[key].dtype) for key in matched)
    with torch.no_grad():
        for key in matched:
            state[key].copy_(tensors[key])
    converted = (
        f"{_short(old)} → {_short(new)}: {count} tensors" for (old, new), count in conversions.items() if old != new
    )
    return replace(report, digest=weights_digest(module), converted=tuple(sorted(converted)))


def fill_seeded(
    module: nn.Module,
    seed: int = 0,
    rescale: Mapping[str, float] | None = None,
    components: Components = WHOLE_MODEL,
) -> WeightsReport:
    """Fill every floating-point entry of `module.state_dict()` by `samonnx.seeded.seeded_tensor` under its own key.

    `rescale` maps keys to factors, multiplied onto the filled tensor in float32. Raises WeightsError for a factor
    whose key the module lacks, or that leaves the range of float32; the module is untouched then.
    """
    rescale = rescale or {}
    state = {key: value for key, value in _state_of(module, components).items() if value.is_floating_point()}
    _check_factors(rescale, state, seed)
    with torch.no_grad():
        for key, value in state.items():
            value.copy_(torch.from_numpy(_filled(key, value, seed, rescale.get(key))))
    return WeightsReport(
        source=f"seeded(seed={seed})",
        components=tuple(_matched(name, components, state) for name in components),
        digest=weights_digest(module),
        notes=(SEEDED_NOTE, *(f"rescaled: {key} × {factor:g}" for key, factor in sorted(rescale.items()))),
    )


def weights_digest(module: nn.Module) -> str:
    """sha256 (hex) over name, dtype, shape and bytes of the state dict, sorted by name.

    `num_batches_tracked` is left out: nothing reads it in eval mode, and not every file has it.
    """
    digest = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        if not key.endswith("num_batches_tracked"):
            digest.update(f"{key} {_short(value.dtype)} {list(value.shape)}\n".encode())
            digest.update(_bytes_of(value))
    return digest.hexdigest()


def _state_of(module: nn.Module, components: Components) -> dict[str, torch.Tensor]:
    """The module's own tensors by key (not copies: what is written into them is in the module)."""
    state = dict(module.state_dict())
    orphans = sorted(key for key in state if _owner(key, components) is None)
    if orphans:
        raise WeightsError(
            f"{len(orphans)} weights of the model lie in no component ({', '.join(components)}), for example "
            f"{orphans[0]!r}; add their prefix to a component"
        )
    unallocated = sorted(key for key, value in state.items() if value.is_meta)
    if unallocated:
        raise WeightsError(
            f"{len(unallocated)} weights of the model are on the meta device, for example {unallocated[0]!r}; "
            f"build the model on the CPU, a copy into a meta tensor is lost without a word"
        )
    return state


def _owner(key: str, components: Components) -> str | None:
    fits = [
        (len(prefix), name) for name, prefixes in components.items() for prefix in prefixes if key.startswith(prefix)
    ]
    return max(fits)[1] if fits else None


def _compare(
    name: str,
    components: Components,
    state: Mapping[str, torch.Tensor],
    tensors: Mapping[str, torch.Tensor],
    unused: set[str],
) -> ComponentWeights:
    """Judge the keys of one component, from both sides."""
    wanted = sorted(key for key in state if _owner(key, components) == name)
    given = sorted(key for key in tensors if _owner(key, components) == name)
    common = [key for key in wanted if key in tensors]
    misshaped = [Misfit(key, problem) for key in common if (problem := _misfit(tensors[key], state[key]))]
    misfits = {misfit.name for misfit in misshaped}
    non_finite = [
        Misfit(key, problem)
        for key in common
        if key not in misfits and (problem := _not_finite(tensors[key], state[key].dtype))
    ]
    misfits.update(misfit.name for misfit in non_finite)
    matched = tuple(key for key in common if key not in misfits)
    return ComponentWeights(
        name=name,
        matched=matched,
        missing=tuple(key for key in wanted if key not in tensors and state[key].is_floating_point()),
        unexpected=tuple(key for key in given if key not in state and key not in unused),
        misshaped=tuple(misshaped),
        non_finite=tuple(non_finite),
        unused=tuple(key for key in given if key in unused),
        parameters=sum(state[key].numel() for key in matched),
    )


def _matched(name: str, components: Components, state: Mapping[str, torch.Tensor]) -> ComponentWeights:
    keys = tuple(sorted(key for key in state if _owner(key, components) == name))
    return ComponentWeights(name, matched=keys, parameters=sum(state[key].numel() for key in keys))


def _misfit(found: torch.Tensor, wanted: torch.Tensor) -> str | None:
    if found.shape != wanted.shape:
        return f"shape {list(found.shape)}, expected {list(wanted.shape)}"
    convertible = found.dtype in _FLOATS if wanted.is_floating_point() else found.dtype == wanted.dtype
    return None if convertible else f"dtype {_short(found.dtype)}, expected {_short(wanted.dtype)}"


def _not_finite(found: torch.Tensor, dtype: torch.dtype) -> str | None:
    """Judged after the conversion: 1e300 is finite in float64 and infinite in float32."""
    if not found.is_floating_point():
        return None
    bad = ~torch.isfinite(found.to(dtype))
    count = int(bad.sum())
    if not count:
        return None
    first = tuple(int(i) for i in np.unravel_index(int(bad.flatten().to(torch.uint8).argmax()), tuple(bad.shape)))
    return f"{count} of {found.numel()} values are not finite, the first is {float(found[first])} at {list(first)}"


def _check_factors(rescale: Mapping[str, float], state: Mapping[str, torch.Tensor], seed: int) -> None:
    problems = []
    for key, factor in rescale.items():
        if key not in state:
            close = difflib.get_close_matches(key, state, n=3)
            hint = f"; close to it: {', '.join(close)}" if close else ""
            problems.append(f"rescale names {key!r}, which is no floating-point weight of the model{hint}")
        elif not math.isfinite(factor) or not np.isfinite(_filled(key, state[key], seed, factor)).all():
            problems.append(f"rescale: {key} × {factor:g} leaves the range of float32")
    if problems:
        raise WeightsError("\n".join(problems))


def _filled(key: str, value: torch.Tensor, seed: int, factor: float | None) -> npt.NDArray[np.float32]:
    filled = seeded_tensor(key, tuple(value.shape), seed)
    if factor is None:
        return filled
    with np.errstate(over="ignore"):
        return np.asarray(filled * np.float32(factor), dtype=np.float32)


def _bytes_of(value: torch.Tensor) -> memoryview:
    # Through uint8, because NumPy has no bfloat16.
    octets: npt.NDArray[np.uint8] = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return octets.data


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
