"""`torch.compile` as a variant, with a compiler that does nothing: the real one takes minutes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.torch_compile import CompiledModule


class TwoOutputs(nn.Module):
    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return image + 1, image.sum()


def test_outputs_come_by_name_from_the_compiled_module(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    ran: list[bool] = []

    def compile_(module: nn.Module, **options: Any) -> nn.Module:
        asked.update(options)
        module.register_forward_hook(lambda *_: ran.append(torch.is_inference_mode_enabled()))
        return module

    monkeypatch.setattr(torch, "compile", compile_)
    step = CompiledModule(TwoOutputs(), (torch.ones(2),), ("more", "sum"))
    for _ in range(2):
        outputs = step()
        assert list(outputs) == ["more", "sum"]
        assert np.array_equal(outputs["more"], [2, 2])
        assert outputs["sum"] == 2
    assert asked == {"dynamic": False}
    assert ran == [True, True]
