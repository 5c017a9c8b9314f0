"""One frame, run for several groups of objects: all of their banks move on, or none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from samonnx.runtime.object_group import ObjectGroup, RowInputs
from samonnx.runtime.seating import Seating
from samonnx.runtime.step_sessions import StepSessions

__all__ = ["run_frame"]


def run_frame(
    seating: Seating,
    sessions: StepSessions,
    frame_index: int,
    *,
    given: Mapping[int, RowInputs],
    groups: Sequence[ObjectGroup],
    load_image: Callable[[], None],
) -> None:
    """Run `groups` and those that the prompts in `given` (by object number) concern.

    New objects get a row first. A group that has had this frame already goes back to its bank before it. `load_image`
    fills the inputs that all groups share; it is called if anything is to be run. After an error all banks and objects
    are as before.
    """
    new = [number for number in given if number not in seating]
    concerned, rewound = list(groups), []
    try:
        for number, inputs in given.items():
            known = number in seating
            group, row = seating.place(number) if known else seating.free_place()
            if group.rewind_to(frame_index):
                rewound.append(group)
            if not known:
                group.assign(row, number)
                seating.seat(number, group, row)
            group.set_row(row, inputs)
            if group not in concerned:
                concerned.append(group)
        if concerned:
            load_image()
            session = sessions.session(concerned, seating.groups)
            for group in concerned:
                group.run(session)
    except BaseException:
        for group in rewound:
            group.accept(frame_index)
        for number in new:
            seating.unseat(number)
        raise
    for group in concerned:
        group.accept(frame_index)
