"""The sensory memory's gated unit against a plain recomputation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from samonnx.models.xmem_sensory import MultiScaleUpdate, SensoryUpdate
from samonnx.weights import fill_seeded


def updated(g: Tensor, h: Tensor, w: dict[str, Tensor]) -> Tensor:
    gates = F.conv2d(torch.cat([g, h], 1), w["transform.weight"], w["transform.bias"], padding=1)
    forget, update, value = gates[:, :2].sigmoid(), gates[:, 2:4].sigmoid(), gates[:, 4:].tanh()
    return forget * h * (1 - update) + update * value


def test_the_gates_are_forget_update_value_in_that_order() -> None:
    unit = SensoryUpdate(3, 2)
    fill_seeded(unit)
    unit.double().requires_grad_(False)
    g, h = torch.randn(2, 3, 4, 5, dtype=torch.float64), torch.randn(2, 2, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(unit(g, h), updated(g, h, unit.state_dict()))


def test_the_maps_of_finer_strides_are_averaged_before_they_are_summed() -> None:
    unit = MultiScaleUpdate((3, 4, 5), 6, 2)
    fill_seeded(unit)
    unit.double().requires_grad_(False)
    w = unit.state_dict()
    maps = [torch.randn(1, c, 4 * n, 6 * n, dtype=torch.float64) for c, n in ((3, 1), (4, 2), (5, 4))]
    summed = torch.zeros(1, 6, 4, 6, dtype=torch.float64)
    for x, stride, name in zip(maps, (1, 2, 4), ("g16", "g8", "g4"), strict=True):
        mean = x.unfold(2, stride, stride).unfold(3, stride, stride).mean((4, 5))
        summed += F.conv2d(mean, w[f"{name}_conv.weight"], w[f"{name}_conv.bias"])
    torch.testing.assert_close(unit.multi_scale(*maps), summed)
    h = torch.randn(1, 2, 4, 6, dtype=torch.float64)
    torch.testing.assert_close(unit(summed, h), updated(summed, h, w))
