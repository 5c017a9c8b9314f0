"""The bank between its two homes: rows of graphs, and a value that can be saved."""

from __future__ import annotations

import numpy as np

from samonnx.runtime.bank import Bank
from samonnx.runtime.manifest import Manifest
from samonnx.runtime.seating import Seating

__all__ = ["bank_of", "seat_objects"]


def bank_of(seating: Seating, manifest: Manifest, next_frame: int) -> Bank:
    """A copy of all objects' rows, in the order in which they came."""
    rows = [(group.bank_rows(), row) for group, row in map(seating.place, seating.numbers)]
    tensors = {pair.input: np.stack([bank[pair.input][row] for bank, row in rows]) for pair in manifest.bank if rows}
    empty = Bank.empty(manifest, seating.numbers)
    return Bank(tensors or empty.tensors, seating.numbers, next_frame, empty.recipe, empty.weights, empty.digest)


def seat_objects(bank: Bank, seating: Seating) -> None:
    """Give each object of the bank a row that holds what the bank does; objects that hold nothing are left out."""
    for index, (number, held) in enumerate(zip(bank.objects, bank.frames(), strict=True)):
        if held:
            group, row = seating.free_place()
            group.fill(row, number, {name: tensor[index] for name, tensor in bank.tensors.items()})
            seating.seat(number, group, row)
