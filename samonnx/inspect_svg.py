"""A part of a graph as SVG: operators as boxes, values as lines with their shapes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

import onnx_ir as ir

from samonnx.inspect_facts import shape_text
from samonnx.inspect_layout import Layout, lay_out
from samonnx.inspect_region import Region

__all__ = ["draw_region"]

_MARGIN, _LINE, _BETWEEN = 20.0, 16.0, 46.0
_CHARACTER = 6.6  # mean width of one in the 11 px font
_MOST_CHARACTERS = 34
_MOST_CONSTANTS = 3

_STYLE = """\
text { font: 11px "DejaVu Sans", Verdana, sans-serif; fill: #222; text-anchor: middle }
.op { font-weight: bold; font-size: 12px } .small { fill: #666 } .edge { fill: #555; font-size: 10px }
.halo { stroke: #fff; stroke-width: 3; paint-order: stroke }
rect { fill: #eef3fb; stroke: #2f6db3 } .port rect { fill: #f4f4f4; stroke: #8c8c8c; stroke-dasharray: 3 2 }
path { fill: none; stroke: #8a8a8a } .tip { fill: #8a8a8a; stroke: none }"""


@dataclass(frozen=True)
class _Box:
    lines: tuple[str, ...]
    tip: str
    kind: str
    """`node`, or `port` for a value that enters or leaves."""

    @property
    def width(self) -> float:
        return max(60.0, 16 + _CHARACTER * 1.1 * max(map(len, self.lines)))

    @property
    def height(self) -> float:
        return 10 + _LINE * len(self.lines)


def draw_region(region: Region, title: str) -> str:
    """The text of an SVG file; the same for the same graph."""
    boxes: list[_Box] = []
    number: dict[ir.Node, int] = {}
    entering: dict[ir.Value, int] = {}
    for edge in region.edges:
        if edge.maker is None and edge.value not in entering:
            entering[edge.value] = len(boxes)
            boxes.append(_port(edge.value))
    for node in region.nodes:
        number[node] = len(boxes)
        boxes.append(_node(node))
    lines: list[tuple[int, int]] = []
    labels: list[str] = []
    for edge in region.edges:
        upper = entering[edge.value] if edge.maker is None else number[edge.maker]
        if edge.reader is None:
            lower = len(boxes)
            boxes.append(_port(edge.value))
        else:
            lower = number[edge.reader]
        lines.append((upper, lower))
        labels.append(_shape(edge.value))
    layout = lay_out([box.width for box in boxes], lines)
    return _svg(boxes, lines, labels, layout, title)


def _node(node: ir.Node) -> _Box:
    name = node.name or str(node.outputs[0].name)
    operator = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
    stored = [value for value in node.inputs if value is not None and _is_stored(value)]
    constants = [f"{_elided(str(v.name), 20)} {_shape(v)}" for v in stored[:_MOST_CONSTANTS]]
    constants += [f"and {len(stored) - _MOST_CONSTANTS} more"] if len(stored) > _MOST_CONSTANTS else []
    attributes = [f"{key} = {value.value}" for key, value in sorted(node.attributes.items()) if _is_short(value)]
    tip = "\n".join([operator, name, *attributes, *(f"{v.name} {_shape(v)}" for v in stored)])
    return _Box((operator, _elided(name), *constants), tip, "node")


def _port(value: ir.Value) -> _Box:
    return _Box((_elided(str(value.name)),), str(value.name), "port")


def _is_stored(value: ir.Value) -> bool:
    producer = value.producer()
    return value.is_initializer() or (producer is not None and producer.op_type == "Constant")


def _is_short(attribute: ir.Attr) -> bool:
    kinds = ("INT", "FLOAT", "STRING", "INTS", "FLOATS", "STRINGS")
    return not attribute.is_ref() and attribute.type.name in kinds and len(str(attribute.value)) < 80


def _shape(value: ir.Value) -> str:
    if value.shape is None:
        return "?"
    return shape_text(tuple(dim if isinstance(dim, int) else dim.value or "?" for dim in value.shape))


def _elided(text: str, most: int = _MOST_CHARACTERS) -> str:
    """The end says more than the beginning, which is the module's path."""
    return text if len(text) <= most else "…" + text[-(most - 1) :]


def _text(text: str) -> str:
    """XML allows no control characters, escaped or not."""
    return escape(re.sub(r"[^\t\n\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text))


def _svg(
    boxes: Sequence[_Box], lines: Sequence[tuple[int, int]], labels: Sequence[str], layout: Layout, title: str
) -> str:
    heights = [0.0] * layout.layers
    for box, (_, layer) in zip(boxes, layout.centres, strict=True):
        heights[layer] = max(heights[layer], box.height)
    tops = [_MARGIN + 1.5 * _LINE]
    for height in heights:
        tops.append(tops[-1] + height + _BETWEEN)
    width = max(layout.width, _CHARACTER * 1.2 * len(title)) + 2 * _MARGIN
    height = tops[-1] - _BETWEEN + _MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}">',
        f"<title>{_text(title)}</title>",
        f"<style>{_STYLE}</style>",
        '<rect x="0" y="0" width="100%" height="100%" style="fill:#fff;stroke:none"/>',
        f'<text x="{width / 2:.0f}" y="{_MARGIN:.0f}" class="op">{_text(title)}</text>',
    ]
    bottoms = [tops[layer] + boxes[at].height for at, (_, layer) in enumerate(layout.centres)]
    texts = []
    seen: set[tuple[int, int, str]] = set()
    for (upper, lower), joints, label in zip(lines, layout.routes, labels, strict=True):
        (x, layer), (end, last) = layout.centres[upper], layout.centres[lower]
        points = [(x, bottoms[upper])]
        for offset, joint in enumerate(joints, 1):
            points += [(joint, tops[layer + offset]), (joint, tops[layer + offset] + heights[layer + offset])]
        points.append((end, tops[last] - 4))
        parts.append(_curve([(px + _MARGIN, py) for px, py in points]))
        if (upper, lower, label) not in seen:  # one label for a value that is read twice
            seen.add((upper, lower, label))
            at_x, at_y = (points[-2][0] + end) / 2 + _MARGIN, (points[-2][1] + tops[last]) / 2 + 3
            texts.append(f'<text x="{at_x:.1f}" y="{at_y:.1f}" class="edge halo">{_text(label)}</text>')
    for box, (x, layer) in zip(boxes, layout.centres, strict=True):
        parts.append(_box(box, x + _MARGIN, tops[layer]))
    return "\n".join([*parts, *texts, "</svg>"]) + "\n"


def _curve(points: Sequence[tuple[float, float]]) -> str:
    """Straight down through joints, bent between layers, with a tip at the end."""
    path = f"M{points[0][0]:.1f},{points[0][1]:.1f}"
    for at in range(0, len(points) - 1, 2):
        (x, y), (end_x, end_y) = points[at], points[at + 1]
        bend = (y + end_y) / 2
        path += f" C{x:.1f},{bend:.1f} {end_x:.1f},{bend:.1f} {end_x:.1f},{end_y:.1f}"
        if at + 2 < len(points):
            path += f" L{points[at + 2][0]:.1f},{points[at + 2][1]:.1f}"
    x, y = points[-1]
    return f'<path d="{path}"/>\n<path class="tip" d="M{x - 3.5:.1f},{y - 3:.1f} h7 l-3.5,7 z"/>'


def _box(box: _Box, x: float, top: float) -> str:
    left, round_ = x - box.width / 2, 4 if box.kind == "node" else box.height / 2
    parts = [
        f'<g class="{box.kind}"><title>{_text(box.tip)}</title>',
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" rx="{round_:.0f}"/>',
    ]
    for at, line in enumerate(box.lines):
        kind = "op" if at == 0 and box.kind == "node" else "small" if at else ""
        y = top + 5 + _LINE * at + 12
        parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}"{f" class={chr(34)}{kind}{chr(34)}" if kind else ""}>{_text(line)}</text>'
        )
    return "".join(parts) + "</g>"
