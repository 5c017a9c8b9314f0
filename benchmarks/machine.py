"""What a measurement depends on besides the code: the machine and the versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["MachineFacts", "machine_facts", "physical_cores"]

_PACKAGES = ("numpy", "onnx", "onnx-ir", "onnxruntime", "onnxscript", "onnxslim", "openvino", "torch")


@dataclass(frozen=True)
class MachineFacts:
    """`cores` (physical) that this process may use; `memory_bytes` of the machine; `load` of the last minute before the
    run."""

    cpu: str
    cores: int
    memory_bytes: int
    load: float
    system: str
    python: str
    packages: Mapping[str, str]


def physical_cores() -> int:
    """Cores that this process may run on; threads that share a core count once, where the system says which do."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    return len({_siblings(cpu) for cpu in os.sched_getaffinity(0)})


def _siblings(cpu: int) -> str:
    """The threads of the core of `cpu`, as the kernel lists them: the same text for each of them."""
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


def machine_facts() -> MachineFacts:
    return MachineFacts(
        cpu=_cpu_model(),
        cores=physical_cores(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        load=round(os.getloadavg()[0], 2),
        system=platform.platform(),
        python=platform.python_version(),
        packages={name: importlib.metadata.version(name) for name in _PACKAGES},
    )


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
