"""Which graph runs the next step: `track`, or one made for a bank that holds little yet.

    bank empty ─► track@first      slots 2 … k empty ─► track@k, smallest first      else ─► track

All give the same results while the bank is what they were made for, so this is about time and memory only. New frames
take the first empty slot, so in an object's first frames the memories lie in front; slots are looked at all the same,
because a restored bank may hold them in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from samonnx.runtime.manifest import Manifest
from samonnx.runtime.object_group import ObjectGroup
from samonnx.runtime.session import Session

__all__ = ["StepSessions"]

GENERAL = "track"
FIRST = "track@first"


class StepSessions:
    """Sessions on `track` and its specialisations, opened by `open_session` when first needed.

    `keep` false: one is open at a time, since each holds weights in the engine's layout and buffers for a whole step;
    while the open one may run, it does, so that an object that joins late opens nothing. `keep` true: all that were
    opened stay open, and each call gets the cheapest that may run.
    """

    def __init__(self, manifest: Manifest, open_session: Callable[[str], Session], *, keep: bool = False) -> None:
        self._manifest, self._open_session, self._keep = manifest, open_session, keep
        self._sessions: dict[str, Session] = {}

    @property
    def open(self) -> tuple[str, ...]:
        """The programs with an open session."""
        return tuple(self._sessions)

    def session(self, groups: Sequence[ObjectGroup] = (), bound: Iterable[ObjectGroup] = ()) -> Session:
        """One session for the next calls of all `groups` (none: for empty banks).

        When another one is closed for it, `bound`, the groups that may have run in that, let go of it first. Raises
        what `open_session` raises.
        """
        empty = all(group.holds_nothing for group in groups)
        filled = max((group.filled_slots for group in groups), default=0)
        name = self._cheapest(empty, filled)
        if name in self._sessions:
            return self._sessions[name]
        if not self._keep:
            for known in self._sessions:
                if self._may_run(known, empty, filled):
                    return self._sessions[known]
            self.close(bound)  # nothing here may still refer to a session, or its memory stays
        self._sessions[name] = self._open_session(name)
        return self._sessions[name]

    def close(self, bound: Iterable[ObjectGroup] = ()) -> None:
        """Give back what the open sessions hold."""
        for group in bound:
            group.unbind()
        self._sessions.clear()

    def start_again(self, bound: Iterable[ObjectGroup] = ()) -> None:
        """Banks are empty again: without `keep`, close what is not the cheapest for that."""
        if not self._keep and self._cheapest(True, 0) not in self._sessions:
            self.close(bound)

    def _cheapest(self, empty: bool, filled: int) -> str:
        if empty and self._manifest.has_program(FIRST):
            return FIRST
        return self._manifest.for_filled(GENERAL, filled).name

    def _may_run(self, name: str, empty: bool, filled: int) -> bool:
        if name == FIRST:
            return empty
        most = self._manifest.program(name).filled
        return most is None or filled <= most
