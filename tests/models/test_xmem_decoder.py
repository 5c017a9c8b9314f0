"""XMem's decoder against a plain recomputation from its parts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from samonnx.models.xmem_decoder import Decoder
from samonnx.weights import fill_seeded


def enlarged(x: Tensor, factor: int) -> Tensor:
    """Bilinear, pixel centres at halves, edges repeated: a product with one matrix an axis."""

    def matrix(size: int) -> Tensor:
        at = ((torch.arange(size * factor, dtype=torch.float64) + 0.5) / factor - 0.5).clamp(0, size - 1)
        return (1 - (at[:, None] - torch.arange(size)).abs()).clamp(min=0)

    return matrix(x.shape[2]) @ x @ matrix(x.shape[3]).T


def test_the_object_map_is_enlarged_twice_and_its_logits_four_times() -> None:
    decoder = Decoder(2, 16, 3)
    fill_seeded(decoder)
    decoder.double().requires_grad_(False)
    f16, f8, f4 = (torch.randn(1, c, 3 * n, 2 * n, dtype=torch.float64) for c, n in ((32, 1), (16, 2), (8, 4)))
    readout, sensory = (torch.randn(2, c, 3, 2, dtype=torch.float64) for c in (16, 3))
    g16 = decoder.fuser(f16, torch.cat([readout, sensory], 1))
    g8 = decoder.up_16_8.out_conv(decoder.up_16_8.skip_conv(f8) + enlarged(g16, 2))
    g4 = decoder.up_8_4.out_conv(decoder.up_8_4.skip_conv(f4) + enlarged(g8, 2))
    small = decoder.pred(F.relu(g4))
    logits, updated = decoder(f16, f8, f4, readout, sensory)
    torch.testing.assert_close(logits, enlarged(small, 4)[:, 0])
    unit = decoder.hidden_update
    assert unit is not None
    summed = unit.multi_scale(g16, g8, torch.cat([g4, small], 1))  # logits before they are enlarged
    torch.testing.assert_close(updated, unit(summed, sensory))


def test_without_sensory_memory_there_is_no_unit_and_the_state_stays_as_it_is() -> None:
    decoder = Decoder(2, 16, 0)
    assert decoder.hidden_update is None
    state = torch.zeros(1, 0, 1, 1)
    maps = (torch.randn(1, c, n, n) for c, n in ((32, 1), (16, 2), (8, 4)))
    assert decoder(*maps, torch.randn(1, 16, 1, 1), state)[1] is state
