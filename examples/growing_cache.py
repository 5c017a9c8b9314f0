"""A recurrent network that attends to a growing cache becomes one stateless graph with a bank of four slots.

    python examples/growing_cache.py growing_cache.onnx

In Python the cache holds the states so far, as many as there are. In the graph it is `bank.cache` with `bank.valid`,
which leave as `next_bank.…`. Once all slots are full the oldest state gives way: from then on the graph equals the
network with a cache of its last four states.
"""

from __future__ import annotations

import sys

import onnx_ir as ir
import torch
from torch import Tensor, nn

from samonnx import Component, Wiring, link, trace
from samonnx.passes import unroll

OBJECTS, SLOTS, WIDTH = 2, 4, 8


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.key, self.value = nn.GRUCell(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, state: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        """x and state [O, W], cache [O, t, W] → what is read and the new state, [O, W]."""
        state = self.cell(x, state)
        memory = torch.cat([cache, state[:, None]], dim=1)
        weights = torch.softmax(state[:, None] @ self.key(memory).transpose(1, 2) / WIDTH**0.5, dim=-1)
        return (weights @ self.value(memory))[:, 0], state


class Remember(nn.Module):
    def forward(self, cache: Tensor, valid: Tensor, state: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """The state of step t goes to slot t modulo SLOTS, which is empty or has the oldest."""
        here = torch.arange(SLOTS)[None] == step % SLOTS
        return torch.where(here[:, :, None], state[:, None], cache), valid | here


def compiled(network: nn.Module) -> ir.Model:
    row, cache, valid = torch.zeros(OBJECTS, WIDTH), torch.zeros(OBJECTS, SLOTS, WIDTH), torch.zeros(OBJECTS, SLOTS) > 0
    inputs = {"x": row, "state": row, "cache": cache}
    net = trace(Component("net", network, inputs, ("y", "new_state"), symbolic={"cache": {1: "t"}}))
    bank = {"cache": cache, "valid": valid, "state": row, "step": torch.zeros(1, dtype=torch.int64)}
    remember = trace(Component("remember", Remember(), bank, ("new_cache", "new_valid")))
    parts = {"net": unroll(net.model, symbol="t", slots=SLOTS, validity="valid"), "remember": remember.model}
    wires = {f"net.{name}": f"bank.{name}" for name in ("state", "cache", "valid")}
    wires |= {f"remember.{name}": f"bank.{name}" for name in ("cache", "valid")}
    wires |= {"net.x": "x", "remember.step": "step", "remember.state": "net.new_state"}
    wires |= {"y": "net.y", "next_bank.state": "net.new_state"}
    wires |= {f"next_bank.{name}": f"remember.new_{name}" for name in ("cache", "valid")}
    return link(Wiring.between("step", wires, parts), parts)


if __name__ == "__main__":
    ir.save(compiled(Network()), sys.argv[1])
