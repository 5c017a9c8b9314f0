"""Two convolutions in a row as one: what its weights are, and what becomes of the first one's bias. Arrays only."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np

from samonnx.passes.convolution_call import Convolution
from samonnx.passes.interface import Array

__all__ = ["BiasTable", "composed_bias", "composed_form", "composed_weight", "overlaps"]


@dataclass(frozen=True)
class BiasTable:
    """A bias that may depend on the place: at row y and column x it is `values[:, rows[y], columns[x]]`.

    `values` is float64 [out, row classes, column classes]; places that read the same taps of the kernel share a class,
    so that the table is small: [out, 3, 3] for 3 x 3 with padding 1, [out, 1, 1] without padding.
    """

    values: Array
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    @property
    def is_uniform(self) -> bool:
        """The same everywhere: an ordinary bias."""
        return tuple(self.values.shape[1:]) == (1, 1)


def _is_per_pixel(map_: Convolution) -> bool:
    """1 x 1, stride 1, no padding; any groups."""
    return map_.kernel == (1, 1) and map_.strides == (1, 1) and not map_.is_padded and not map_.transposed


def _spread_pads(first: Convolution, second: Convolution) -> tuple[int, ...] | None:
    """Pads of the overlapping transposed convolution that a tiling one and `second` make; None where they make none."""
    if not first.is_tiling or second.transposed or second.strides != (1, 1):
        return None
    pads = tuple(second.dilations[i % 2] * (second.kernel[i % 2] - 1) - second.pads[i] for i in range(4))
    return pads if min(*pads, *second.pads) >= 0 else None


def overlaps(first: Convolution, second: Convolution) -> bool:
    """Whether the two compose only to a transposed convolution whose tiles overlap."""
    return not _is_per_pixel(first) and not _is_per_pixel(second) and _spread_pads(first, second) is not None


def composed_form(first: Convolution, second: Convolution) -> Convolution | None:
    """second ∘ first without a bias, its weight zeros that take no memory: for counting. None: they do not compose.

    They compose in these cases; groups become their greatest common divisor.

    * `second` is per pixel (1 x 1): each output pixel is a linear map of one pixel of the first, whatever that is.
    * `first` is per pixel: with zero-extended input its output without bias is zero outside too, which is just what
      the padding of `second` assumes.
    * `first` is a tiling transposed convolution (kernel = stride = s) and `second` a convolution with stride 1. Pixel i
      contributes through tap u in 0…s-1 to place y = s i + u, and y through tap v (dilation d, padding p, kernel k) to
      z = y + p - d v. With t = u + d (k-1-v) and P = d (k-1) - p that is z = s i + t - P: a transposed convolution with
      stride s, taps t in 0…s-1 + d (k-1) and padding P. Outside of the image y has no pixel i, hence no contribution,
      as the padding of `second` assumes. For 2 x 2 stride 2, then 3 x 3 padding 1: 4 x 4, stride 2, padding 1.
    """
    group = math.gcd(first.group, second.group)
    inputs, outputs = first.in_channels, second.out_channels
    kernel, base = first.kernel, first
    pads = _spread_pads(first, second)
    if _is_per_pixel(first):
        kernel, base = second.kernel, second
    elif not _is_per_pixel(second):
        if pads is None:
            return None
        reach = tuple(second.dilations[axis] * (second.kernel[axis] - 1) for axis in range(2))
        kernel = kernel[0] + reach[0], kernel[1] + reach[1]
        base = replace(first, pads=(pads[0], pads[1], pads[2], pads[3]))
    channels = (inputs, outputs // group) if base.transposed else (outputs, inputs // group)
    zeros = np.broadcast_to(np.zeros((), np.float64), (*channels, *kernel))
    return replace(base, weight=zeros, bias=None, group=group)


def composed_weight(first: Convolution, second: Convolution) -> Convolution:
    """`composed_form` with its weight, in float64. Raises ValueError where the two do not compose."""
    form = composed_form(first, second)
    if form is None:
        raise ValueError("the convolutions do not compose; expected a pair that `composed_form` knows")
    inner, outer = _blocks(first.wide(), form.group), _blocks(second.wide(), form.group)  # [g, mid, in], [g, out, mid]
    group, middle, inputs, height, width = inner.shape
    columns = inner.reshape(group, middle, -1)
    weight = np.zeros((group, outer.shape[1], inputs, *form.kernel))
    flipped = overlaps(first, second)
    for tap in np.ndindex(*second.kernel):
        y, x = (
            second.dilations[axis] * (second.kernel[axis] - 1 - tap[axis]) if flipped else tap[axis]
            for axis in range(2)
        )
        product = np.ascontiguousarray(outer[..., tap[0], tap[1]]) @ columns
        weight[..., y : y + height, x : x + width] += product.reshape(group, -1, inputs, height, width)
    if form.transposed:
        weight = weight.swapaxes(1, 2)
    return replace(form, weight=np.ascontiguousarray(weight).reshape(form.weight.shape))


def composed_bias(first: Convolution, second: Convolution, shape: tuple[int, ...]) -> BiasTable | None:
    """What second(first(·)) adds to the composed weights' result; None when neither has a bias.

    `shape` is that of the value in between, [N, C, h, w]. The first's bias fills the image and not the padding: a
    place of the output gets it through those taps of `second` that lie within.
    """
    bias = np.zeros(second.out_channels) if second.bias is None else second.bias.astype(np.float64)
    if first.bias is None or not first.bias.any():
        height, width = second.output_shape(shape)[2:]
        uniform = BiasTable(bias[:, None, None], (0,) * height, (0,) * width)
        return None if second.bias is None else uniform
    constant = first.bias.astype(np.float64).reshape(second.group, -1, 1)
    taps = _blocks(second.wide(), second.group)
    taps = (taps * constant[:, None, :, :, None]).sum(2).reshape(second.out_channels, *second.kernel)
    (row_classes, rows), (column_classes, columns) = (_classes(second, shape[axis + 2], axis) for axis in range(2))
    values = np.einsum("ry,oyx,cx->orc", row_classes, taps, column_classes) + bias[:, None, None]
    return BiasTable(values, rows, columns)


def _blocks(map_: Convolution, group: int) -> Array:
    """The weight as [group, out / group, in / group, kh, kw]; fewer groups than the map has are filled with zeros."""
    finer = map_.group // group
    lead, other = map_.weight.shape[0] // map_.group, map_.weight.shape[1]
    split = map_.weight.reshape(group, finer, lead, other, *map_.kernel)
    blocks = np.zeros((group, finer, lead, finer, other, *map_.kernel), map_.weight.dtype)
    for index in range(finer):
        blocks[:, index, :, index] = split[:, index]
    blocks = blocks.reshape(group, finer * lead, finer * other, *map_.kernel)
    return blocks.swapaxes(1, 2) if map_.transposed else blocks


def _classes(map_: Convolution, size: int, axis: int) -> tuple[Array, tuple[int, ...]]:
    """Which sets of taps [classes, k] read within an axis of `size`, and the class of each place of the output."""
    stride, dilation, pad = map_.strides[axis], map_.dilations[axis], map_.pads[axis]
    taps = range(map_.kernel[axis])
    places = map_.output_shape((1, 1, size, size))[axis + 2]
    if map_.transposed:  # place = stride · source + dilation · tap - pad
        reached = ((divmod(place + pad - dilation * tap, stride) for tap in taps) for place in range(places))
        sets = [tuple(rest == 0 and 0 <= source < size for source, rest in row) for row in reached]
    else:
        sets = [tuple(0 <= stride * place - pad + dilation * tap < size for tap in taps) for place in range(places)]
    number = dict(zip(dict.fromkeys(sets), itertools.count(), strict=False))
    return np.array(list(number), np.float64), tuple(number[taps_read] for taps_read in sets)
