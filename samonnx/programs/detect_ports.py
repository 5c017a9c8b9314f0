"""Inputs and outputs of the programs that detect (DESIGN, contract of `segment`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from samonnx.models.detector import DetectorSizes
from samonnx.models.tracker import TrackedModel
from samonnx.programs.program import Port

if TYPE_CHECKING:
    from samonnx.recipe import DetectionSpec

__all__ = [
    "detection_ports",
    "image_map_ports",
    "image_port",
    "normalised_image_port",
    "prompt_ports",
    "text_ports",
    "token_port",
]

F32, I32, FLAG = "float32", "int32", "bool"

LABELS = "1 positive (like this), 0 negative (not like this), -1 empty place"


def image_port(model: TrackedModel) -> Port:
    """`image`, normalised as the model has it."""
    return normalised_image_port(model.tracker.sizes.image_size, model.image_mean, model.image_std)


def normalised_image_port(
    size: int, mean: tuple[float, ...], std: tuple[float, ...], around: str | None = None
) -> Port:
    """`image` f32 [1, 3, size, size], RGB of `mean` and `std` in 0…1; `around`: what is where the picture ends."""

    def numbers(values: tuple[float, ...]) -> str:
        return str(values[0]) if len(set(values)) == 1 else f"({', '.join(map(str, values))})"

    lowest = min(-m / s for m, s in zip(mean, std, strict=True))
    highest = max((1 - m) / s for m, s in zip(mean, std, strict=True))
    return Port(
        "image",
        F32,
        (1, 3, size, size),
        f"frame, RGB, normalised as (x / 255 - {numbers(mean)}) / {numbers(std)}"
        + (f"; {around}" if around else "")
        + "; encoded once for everything that is asked of it",
        f"{lowest:.3g} … {highest:.3g}",
    )


def token_port(sizes: DetectorSizes) -> Port:
    meaning = "CLIP tokens: 49406, the text's, 49407, then zeros; a longer text is cut and ends in 49407"
    return Port("token_ids", "int64", (1, sizes.context_length), meaning, "0 … 49407")


def text_ports(sizes: DetectorSizes) -> tuple[Port, ...]:
    tokens = sizes.context_length
    return (
        Port("text_features", F32, (1, tokens, sizes.hidden_dim), "one vector a token, padding among them"),
        Port("text_valid", FLAG, (1, tokens), "whether the token is a real one (its id is not 0)"),
    )


def image_map_ports(sizes: DetectorSizes) -> tuple[Port, ...]:
    d, g = sizes.hidden_dim, sizes.grid
    return (
        Port("high_res_0", F32, (1, d, 4 * g, 4 * g), "the detector's feature map at 4 times the grid"),
        Port("high_res_1", F32, (1, d, 2 * g, 2 * g), "the detector's feature map at 2 times the grid"),
        Port("features", F32, (1, d, g, g), "the detector's feature map on the grid"),
    )


def prompt_ports(sizes: DetectorSizes, spec: DetectionSpec) -> tuple[Port, ...]:
    """In the order of `GeometryEncoder.forward`."""
    ports = [
        Port(
            "prompt_boxes",
            F32,
            (1, spec.boxes, 4),
            "boxes given as examples: centre x, centre y, width, height, as shares of the image",
            "0 … 1",
        ),
        Port("prompt_box_labels", I32, (1, spec.boxes), LABELS, "-1 … 1"),
        Port("prompt_points", F32, (1, spec.points, 2), "x, y as shares of the image", "0 … 1"),
        Port("prompt_point_labels", I32, (1, spec.points), LABELS, "-1 … 1"),
    ]
    if spec.masks:
        side = 4 * sizes.grid
        ports += [
            Port("prompt_masks", F32, (1, spec.masks, side, side), "masks given as examples", "0 … 1"),
            Port("prompt_mask_labels", I32, (1, spec.masks), LABELS, "-1 … 1"),
        ]
    return tuple(ports)


def detection_ports(sizes: DetectorSizes, prefix: str = "") -> tuple[Port, ...]:
    q, side = sizes.queries, 4 * sizes.grid
    return (
        Port(
            f"{prefix}boxes", F32, (1, q, 4), "x0, y0, x1, y1 of each detection, as shares of the image", "about 0 … 1"
        ),
        Port(f"{prefix}logits", F32, (1, q), "logit of each detection; the pin joint_box_scores says of what"),
        Port(f"{prefix}presence", F32, (1,), "logit: the concept is in the image"),
        Port(f"{prefix}scores", F32, (1, q), "joint probability of class and presence", "0 … 1"),
        Port(f"{prefix}masks", F32, (1, q, side, side), "mask logits of each detection, above 0 is the object"),
        Port(f"{prefix}semantic_mask", F32, (1, 1, side, side), "mask logits of the concept as a whole"),
    )
