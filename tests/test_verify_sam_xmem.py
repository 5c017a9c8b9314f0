"""Verification of `start`: it passes, and a single other weight in any of its three parts is found out."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest
import torch

from samonnx.errors import VerificationError
from samonnx.models.sam_xmem import SamXMem
from samonnx.programs.program import Program
from samonnx.programs.recipe_programs import recipe_programs
from samonnx.verify_recipe import RecipeVerifier, own_verifier
from samonnx.verify_sam_xmem import SamXMemVerifier
from tests.compiled_artifact import compiled_folder
from tests.models.sam_xmem_tiny import RECIPE, tiny_recipe, tiny_sam_xmem


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> ir.Model:
    """`start` of the artifact that tests/test_xmem_tracker_on_artifact.py compiles too."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    folder: Path = compiled_folder(shared, ("verify.frames=4",), recipe=RECIPE, targets=("onnx",))
    return ir.load(folder / "start.onnx")


def start_of(model: SamXMem) -> Program:
    return next(program for program in recipe_programs(model, tiny_recipe()) if program.name == "start")


def test_a_sam_in_front_of_xmem_has_a_verifier_of_its_own() -> None:
    assert isinstance(own_verifier(tiny_sam_xmem(), tiny_recipe()), SamXMemVerifier)


def test_the_compiled_graph_passes_in_all_its_parts(graph: ir.Model) -> None:
    figures = RecipeVerifier(tiny_recipe(), tiny_sam_xmem()).verify({"start": graph}, "onnx", start_of(tiny_sam_xmem()))
    compared = {figure.what for _, _, figure in figures}
    outputs = {str(value.name) for value in graph.graph.outputs}
    assert compared >= outputs | {"SAM's features", "key", "similarity of what is read"}


@pytest.mark.parametrize(
    ("weight", "what"),
    [
        ("sam.image_encoder.neck.3.bias", "SAM's features"),
        ("sam.mask_decoder.iou_prediction_head.layers.2.bias", "prompt_ious"),
        ("xmem.decoder.pred.bias", "probabilities"),
    ],
)
def test_another_weight_is_found_out(graph: ir.Model, weight: str, what: str) -> None:
    model = tiny_sam_xmem()
    program, parameter = start_of(model), model.get_parameter(weight)
    kept = parameter.detach().clone()
    with torch.inference_mode():
        try:
            parameter.add_(0.05)
            with pytest.raises(VerificationError, match=what):
                RecipeVerifier(tiny_recipe(), model).verify({"start": graph}, "onnx", program)
        finally:
            parameter.copy_(kept)
