"""The image encoder of tracking as a program of its own: image → the three maps that every later part of `track` reads.

image ─► encode_trunk ─► tracker_neck ─► high_res_0 f32 [1, D/8, 4h, 4w]   decoder's finest map, behind its 1x1 conv_s0
                                     ├─► high_res_1 f32 [1, D/4, 2h, 2w]   the next, behind conv_s1
                                     └─► features   f32 [1, D, h, w]       memory attention and memory encoder

The two 1x1 convolutions belong to it in every variant: the maps behind them are computed once a frame for all objects,
and nothing of tracking reads the maps before them. An artifact has no such program (its `encode_image` gives the
detector's maps); its `track` holds this one as a part. So the graphs are made here of the same two components, with the
same passes and targets as when a recipe is compiled, and not cut out of `track` by the names of values, which passes
may change.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import onnx_ir as ir
import torch

from samonnx.compile import bind_components
from samonnx.component_tracer import trace_components
from samonnx.link import link
from samonnx.models.efficientsam3 import EfficientSAM3
from samonnx.pass_pipelines import apply_general_passes, lower
from samonnx.programs.detect_ports import image_port
from samonnx.programs.image_encoder import TrackerNeck, trunk_component
from samonnx.programs.program import Component, Port, Program, Wire

__all__ = ["MAPS", "compile_program", "tracker_maps_program"]

MAPS = ("high_res_0", "high_res_1", "features")


def tracker_maps_program(model: EfficientSAM3) -> Program:
    """The program `encode` of the module docstring."""
    sizes = model.tracker.sizes
    depth, grid = sizes.hidden_dim, sizes.grid
    shapes = ((1, depth // 8, 4 * grid, 4 * grid), (1, depth // 4, 2 * grid, 2 * grid), (1, depth, grid, grid))
    trunk_map = {"trunk_map": torch.zeros(model.trunk_map_shape)}
    return Program(
        "encode",
        (image_port(model),),
        tuple(Port(name, "float32", shape, "map for tracking") for name, shape in zip(MAPS, shapes, strict=True)),
        (trunk_component(model), Component("tracker_neck", TrackerNeck(model).eval(), trunk_map, MAPS)),
        (
            Wire("image", "encode_trunk.image"),
            Wire("encode_trunk.trunk_map", "tracker_neck.trunk_map"),
            *(Wire(f"tracker_neck.{name}", name) for name in MAPS),
        ),
    )


def compile_program(program: Program, model: EfficientSAM3, targets: Iterable[str], folder: Path) -> dict[str, Path]:
    """Target → graph file in `folder` (weights beside it), through the passes that compiling a recipe runs. Raises what
    tracing and passes raise."""
    traced = trace_components(program.components, model)
    bind_components(program.components, traced)
    general = apply_general_passes(link(program, traced)).model
    paths = {}
    for target in targets:
        paths[target] = folder / f"{program.name}.{target}.onnx"
        ir.save(lower(general, target).model, paths[target], external_data=f"{program.name}.{target}.bin")
    return paths
