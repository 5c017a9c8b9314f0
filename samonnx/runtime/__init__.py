"""The runtime: drives compiled graphs with numpy and ONNX Runtime alone; no PyTorch.

`open_tracker(folder)` gives the tracker that an artifact needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from samonnx.runtime.object_tracker import open_tracker

__all__ = ["open_tracker"]


def __getattr__(name: str) -> Any:
    """Import on first use: the manifest and the like are read by the compiler, which needs no engine for that."""
    if name == "open_tracker":
        from samonnx.runtime.object_tracker import open_tracker

        return open_tracker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
