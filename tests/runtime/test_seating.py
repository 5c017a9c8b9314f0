from __future__ import annotations

from pathlib import Path

from samonnx.runtime.manifest import Manifest
from samonnx.runtime.object_group import ObjectGroup, SharedInputs
from samonnx.runtime.seating import Seating
from tests.runtime.hand_made_artifact import SIZE


def seating(artifact: Path) -> Seating:
    manifest = Manifest.load(artifact)
    return Seating(lambda: ObjectGroup(manifest, SharedInputs(SIZE)))


def take(seats: Seating, number: int) -> None:
    group, row = seats.free_place()
    group.assign(row, number)
    seats.seat(number, group, row)


def test_groups_fill_up_one_after_the_other(artifact: Path) -> None:
    seats = seating(artifact)
    for number in (5, 3, 8):
        take(seats, number)
    assert seats.numbers == (5, 3, 8)
    assert [group.objects for group in seats.groups] == [[5, 3], [8, None]]
    assert seats.place(8) == (seats.groups[1], 0)


def test_a_free_place_is_taken_before_a_new_group_is_made(artifact: Path) -> None:
    seats = seating(artifact)
    for number in (1, 2, 3, 4):
        take(seats, number)
    seats.unseat(1)
    take(seats, 9)
    assert [group.objects for group in seats.groups] == [[9, 2], [3, 4]]
    assert 1 not in seats
    assert 9 in seats


def test_a_group_without_objects_is_given_up(artifact: Path) -> None:
    seats = seating(artifact)
    for number in (1, 2, 3):
        take(seats, number)
    seats.unseat(3)
    seats.unseat(3)
    assert [group.objects for group in seats.groups] == [[1, 2]]


def test_outputs_of_all_objects_have_the_objects_as_first_axis(artifact: Path) -> None:
    seats = seating(artifact)
    ports = {port.name: port for port in Manifest.load(artifact).program("track").outputs}
    assert seats.rows(ports["ious"]).shape == (0, 3)
    for number in (1, 2, 3):
        take(seats, number)
    seats.groups[1].outputs["ious"].array[0] = 7
    found = seats.rows(ports["ious"])
    assert found.shape == (3, 3)
    assert found[2].tolist() == [7, 7, 7]
    assert seats.rows(ports["mask_choice"]).dtype.name == "int32"
