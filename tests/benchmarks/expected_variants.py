"""Which variants a run must have, from the targets of an artifact or a recipe and what this CPU can do."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.engines import why_no_bf16

WITHOUT_COMPILATION = ("eager*", "straightforward*", "onnx*", "ort-cpu", "*openvino*")
"""All variants but `torch.compile`, which takes minutes."""


def patterns(*chosen: str) -> tuple[str, ...]:
    """Arguments of the command line."""
    return tuple(word for pattern in chosen for word in ("--variant", pattern))


def onnx_runtime_names(targets: Iterable[str]) -> list[str]:
    return [target for target in targets if target != "openvino"]


def openvino_names(targets: Iterable[str]) -> list[str]:
    """In float32."""
    return ["straightforward, OpenVINO", "openvino" if "openvino" in targets else "onnx, OpenVINO"]


def bf16_names(targets: Iterable[str]) -> list[str]:
    ours = "openvino, bf16" if "openvino" in targets else "onnx, OpenVINO bf16"
    return ["straightforward, OpenVINO bf16", ours]


def measured_bf16_names(targets: Iterable[str]) -> list[str]:
    """Of these, what this CPU runs."""
    return [] if why_no_bf16() else bf16_names(targets)
