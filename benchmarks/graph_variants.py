"""Which graphs are compared, and in which engine each runs.

| name | graph | engine |
|---|---|---|
| straightforward | torch.onnx.export | ONNX Runtime |
| onnxslim | the same through onnxslim | ONNX Runtime |
| onnx, ort-cpu | this project's | ONNX Runtime |
| straightforward, OpenVINO | torch.onnx.export, converted by OpenVINO itself | OpenVINO |
| openvino | this project's for OpenVINO; without one: "onnx, OpenVINO" | OpenVINO |
| straightforward, OpenVINO bf16; openvino, bf16 | the two before | OpenVINO with the bf16 hint |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from benchmarks.engines import ENGINE_OF_TARGET, Engine, why_no_bf16
from benchmarks.graph_step import Array
from benchmarks.options import Selection
from benchmarks.slimmed import slimmed
from benchmarks.variant_result import Absent
from benchmarks.work_variant import ONNXSLIM, STRAIGHTFORWARD, GraphVariant, Progress, WorkVariant
from samonnx.errors import SamonnxError

__all__ = ["graph_variants"]


def graph_variants(
    plain: GraphVariant,
    targets: Mapping[str, Path],
    feeds: Mapping[str, Array],
    selection: Selection,
    progress: Progress,
) -> dict[str, WorkVariant]:
    """All variants of the table, in its order, by name; those that cannot be are `Absent`.

    `plain`: the straightforward export in ONNX Runtime; `targets`: target → graph, which all take `feeds`. What
    onnxslim makes is written beside the export, if `selection` takes it.
    """
    found: dict[str, WorkVariant] = {STRAIGHTFORWARD: plain, ONNXSLIM: _slimmed(plain, selection, progress)}
    for target, file in targets.items():
        engine = ENGINE_OF_TARGET.get(target)
        if engine is Engine.ORT:
            found[target] = GraphVariant(file, feeds, engine)
        elif engine is None:
            found[target] = Absent(target, Engine.ORT, f"no engine here runs graphs for {target}")
    ours = "openvino" if "openvino" in targets else "onnx"
    no_bf16 = why_no_bf16()
    for engine in (Engine.OPENVINO, Engine.OPENVINO_BF16):
        graphs = {STRAIGHTFORWARD: replace(plain, engine=engine, may_fail=True)}
        if ours in targets:
            graphs[ours] = GraphVariant(targets[ours], feeds, engine)
        for graph, variant in graphs.items():
            name = _name(graph, engine)
            impossible = engine is Engine.OPENVINO_BF16 and no_bf16
            found[name] = Absent(name, engine, no_bf16) if impossible else variant
    return found


def _slimmed(plain: GraphVariant, selection: Selection, progress: Progress) -> WorkVariant:
    if not selection.takes(ONNXSLIM):
        return Absent(ONNXSLIM, plain.engine, "not asked for")
    progress("onnxslim")
    path = plain.path.with_name(f"{ONNXSLIM}.onnx")
    try:
        slimmed(plain.path, path)
    except SamonnxError as error:
        return Absent(ONNXSLIM, plain.engine, str(error))
    return replace(plain, path=path, may_fail=True)


def _name(graph: str, engine: Engine) -> str:
    if graph != "openvino":
        return f"{graph}, {engine}"
    return graph if engine is Engine.OPENVINO else f"{graph}, bf16"
