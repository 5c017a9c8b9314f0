"""SAM's image encoder with its attention as the original computes it: all logits of all heads in memory, the two
relative-position terms added to them, softmax, product (upstream `segment_anything/modeling/image_encoder.py`).

The eager modules of this project call PyTorch's fused attention instead, which is faster already.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from samonnx.models.sam_vit import RelativePositionAttention

__all__ = ["original_attention"]


def _attend(self: RelativePositionAttention, x: Tensor) -> Tensor:
    """f32 [squares, side², width] → the same shape."""
    squares, cells, _ = x.shape
    q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    down, right = self.position_terms(q)
    grid = logits.unflatten(-1, (self.side, self.side))
    weights = (grid + down[..., :, None] + right[..., None, :]).flatten(-2).softmax(-1)
    attended: Tensor = (weights @ v).transpose(1, 2).reshape(squares, cells, -1)
    return attended


@contextmanager
def original_attention() -> Iterator[None]:
    """Within it, every image encoder of SAM attends so."""
    own = RelativePositionAttention.attend
    RelativePositionAttention.attend = _attend  # type: ignore[method-assign]
    try:
        yield
    finally:
        RelativePositionAttention.attend = own  # type: ignore[method-assign]
