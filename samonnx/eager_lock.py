"""One lock between tracing and eager runs of the same model in another thread.

While torch.export traces a module, proxies and fake tensors stand in the places of its parameters; a thread that ran
the module then would compute with them.
"""

from __future__ import annotations

import threading

__all__ = ["EAGER_LOCK"]

EAGER_LOCK = threading.RLock()
"""Held by `trace` while it exports, and by eager runs that may happen beside it."""
