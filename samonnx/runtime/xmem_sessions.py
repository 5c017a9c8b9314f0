"""Which graph runs a frame of XMem, and which graphs stay loaded.

    clicks or a box ─► start      memory frame (a mask is given, or it is due) ─► track@memory      else ─► track@plain

`track` stands in for the specialisations that an artifact lacks, and `track_and_consolidate` for `track`.
"""

from __future__ import annotations

from collections.abc import Callable

from samonnx.runtime.manifest import Manifest, ManifestError
from samonnx.runtime.session import Session

__all__ = ["XMemSessions"]

START, GENERAL, MEMORY, PLAIN = "start", "track", "track@memory", "track@plain"
CONSOLIDATE, TOGETHER = "consolidate", "track_and_consolidate"


class XMemSessions:
    """Sessions opened by `open_session` when first needed. Frames alternate between `track@plain` and `track@memory`,
    so both stay open; `start`, which holds SAM and the same weights once more, is closed on the next frame without a
    click unless `keep` is true.

    Raises ManifestError for an artifact that can not consolidate, or has no step.
    """

    def __init__(self, manifest: Manifest, open_session: Callable[[str], Session], *, keep: bool = False) -> None:
        self._manifest, self._open_session, self._keep = manifest, open_session, keep
        self._sessions: dict[str, Session] = {}
        self.general = TOGETHER if manifest.has_program(TOGETHER) and not manifest.has_program(GENERAL) else GENERAL
        manifest.program(self.general)
        if self.general == GENERAL and not manifest.has_program(CONSOLIDATE):
            raise ManifestError(
                f"the artifact of recipe {manifest.recipe!r} has `track`, but not `consolidate`, which is due when the "
                "working memory is full. Compile it with both, or with `track_and_consolidate` alone"
            )

    @property
    def open(self) -> tuple[str, ...]:
        """The programs with an open session."""
        return tuple(self._sessions)

    @property
    def consolidates_apart(self) -> bool:
        """Whether a full working memory is for `consolidate`, and not for the step itself."""
        return self.general == GENERAL

    @property
    def consolidate(self) -> Session:
        """For a bank whose working memory is full."""
        return self._session(CONSOLIDATE)

    @property
    def start(self) -> Session:
        """For a frame with clicks or boxes."""
        return self._session(START)

    def step(self, memory_frame: bool) -> Session:
        """For a frame without clicks."""
        if not self._keep:
            self._sessions.pop(START, None)
        special = MEMORY if memory_frame else PLAIN
        return self._session(special if self._manifest.has_program(special) else self.general)

    def _session(self, name: str) -> Session:
        if name not in self._sessions:
            self._sessions[name] = self._open_session(name)
        return self._sessions[name]
