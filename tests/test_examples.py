"""The examples are what they say: short, runnable, and equal to what they were made from."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
import tokenize
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
import torch

from samonnx.graph_session import Array, GraphSession

ROOT = Path(__file__).resolve().parents[1]
GROWING_CACHE = ROOT / "examples" / "growing_cache.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("growing_cache", GROWING_CACHE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def code_lines(path: Path) -> int:
    """Lines with code on them: no blank lines, comments or docstrings."""
    with path.open("rb") as file:
        tokens = list(tokenize.tokenize(file.readline))
    empty = {tokenize.ENCODING, tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    lines = {
        line
        for token in tokens
        if token.type not in empty and token.string
        for line in range(token.start[0], token.end[0] + 1)
    }
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            text = node.body[0]
            lines -= set(range(text.lineno, (text.end_lineno or text.lineno) + 1))
    return len(lines)


def test_the_growing_cache_takes_under_40_lines_of_code() -> None:
    assert code_lines(GROWING_CACHE) < 40


def test_every_length_of_the_growing_cache_is_the_graphs_up_to_past_the_capacity(example: ModuleType) -> None:
    """Past it, the network attends to the last four states, which is what its cache is cut to here."""
    torch.manual_seed(0)
    network = example.Network()
    session = GraphSession(example.compiled(network), threads=1)
    objects, slots, width = example.OBJECTS, example.SLOTS, example.WIDTH
    bank: dict[str, Array] = {
        "bank.state": np.zeros((objects, width), np.float32),
        "bank.cache": np.full((objects, slots, width), np.nan, np.float32),  # whatever lies there
        "bank.valid": np.zeros((objects, slots), bool),
    }
    state, states = torch.zeros(objects, width), list[torch.Tensor]()
    for step in range(3 * slots):
        x = torch.randn(objects, width)
        with torch.inference_mode():
            cache = torch.stack(states[-slots:], 1) if states else torch.zeros(objects, 0, width)
            y, state = network(x, state, cache)
        states.append(state)
        found = session.run({**bank, "x": x.numpy(), "step": np.array([step])})
        np.testing.assert_allclose(found["y"], y.numpy(), rtol=0, atol=1e-5 * float(y.abs().max()))
        assert found["next_bank.valid"].sum() == objects * min(step + 1, slots)
        bank = {name.removeprefix("next_"): array for name, array in found.items() if name.startswith("next_")}


def test_the_graph_would_differ_if_it_forgot_a_state(example: ModuleType) -> None:
    """That the comparison above can fail: with a state more or less, outputs move by far more than it allows."""
    torch.manual_seed(0)
    network = example.Network()
    rows = torch.randn(6, example.OBJECTS, example.WIDTH)
    with torch.inference_mode():
        four, five = (network(rows[0], rows[1], rows[-count:].transpose(0, 1))[0] for count in (4, 5))
    assert (four - five).abs().max() > 1e-3 * four.abs().max()


def test_the_example_runs_as_its_first_lines_say(tmp_path: Path) -> None:
    path = tmp_path / "growing_cache.onnx"
    subprocess.run([sys.executable, str(GROWING_CACHE), str(path)], check=True, cwd=ROOT)
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    outputs = ["y", "next_bank.state", "next_bank.cache", "next_bank.valid"]
    assert [value.name for value in proto.graph.output] == outputs
