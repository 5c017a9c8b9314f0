"""`unroll` on graphs as torch traces them: plain modules that attend to a cache of any length."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from samonnx.graph_session import GraphSession
from samonnx.passes import PassDeclinedError, unroll
from samonnx.programs.program import Component
from samonnx.trace import trace
from tests.passes.graph_text import model_of

OBJECTS, SLOTS = 2, 5


class Heads(nn.Module):
    """Two heads over projected tokens of a cache."""

    def __init__(self) -> None:
        super().__init__()
        self.keys, self.values = nn.Linear(6, 8), nn.Linear(6, 8)

    def forward(self, query: Tensor, cache: Tensor) -> Tensor:
        """[O, q, 8], [O, t, 6] → [O, q, 8]."""
        q, k, v = (x.unflatten(-1, (2, 4)).transpose(1, 2) for x in (query, self.keys(cache), self.values(cache)))
        return scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Products(nn.Module):
    """Matrix product, softmax, matrix product, with a relu and a norm on the cache."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.values = nn.LayerNorm(6), nn.Linear(6, 8)
        self.keys = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8))

    def forward(self, query: Tensor, cache: Tensor) -> Tensor:
        normal = self.norm(cache)
        weights = torch.softmax(query @ self.keys(normal).mT * 0.3, -1)
        read: Tensor = weights @ self.values(normal)
        return read


class Conditioned(nn.Module):
    """Two inputs share the symbol; a learnt token is always attended."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.ages, self.wide = nn.Parameter(torch.randn(1, 1, 8)), nn.Embedding(4, 8), nn.Linear(6, 8)

    def forward(self, query: Tensor, cache: Tensor, age: Tensor) -> Tensor:
        keys = self.wide(cache) + self.ages(age)
        keys = torch.cat([self.token.expand(OBJECTS, 1, 8), keys], 1)
        return scaled_dot_product_attention(query[:, None], keys[:, None], keys[:, None])[:, 0]


class Sums(nn.Module):
    """Einsum over the cache, heads behind the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.keys = nn.Linear(6, 8)

    def forward(self, query: Tensor, cache: Tensor) -> Tensor:
        q, k = query.unflatten(-1, (2, 4)), self.keys(cache).unflatten(-1, (2, 4))
        weights = torch.einsum("bqhd,bthd->bhqt", q, k).mul(0.5).softmax(-1)
        return torch.einsum("bhqt,bthd->bqhd", weights, k).flatten(2)


class Library(nn.Module):
    """Torch's own attention, whose heads join the objects on one axis; its weights are asked for or not."""

    def __init__(self, need_weights: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, kdim=6, vdim=6, batch_first=True)
        self.need_weights = need_weights

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        read: Tensor = self.attention(x, memory, memory, need_weights=self.need_weights)[0]
        return read


MODULES: dict[str, Callable[[], nn.Module]] = {
    "sdpa": Heads,
    "products": Products,
    "ages": Conditioned,
    "einsum": Sums,
    "multihead": functools.partial(Library, need_weights=False),
    "multihead, weights": functools.partial(Library, need_weights=True),
}


@functools.cache
def unrolled(name: str) -> tuple[nn.Module, GraphSession]:
    torch.manual_seed(0)
    module = MODULES[name]().eval()
    inputs = {"query": torch.zeros(OBJECTS, 3, 8), "cache": torch.zeros(OBJECTS, 2, 6)}
    symbolic = {"cache": {1: "t"}}
    if name == "ages":
        inputs["age"] = torch.zeros(OBJECTS, 2, dtype=torch.int64)
        symbolic["age"] = {1: "t"}
    traced = trace(Component(name, module, inputs, ("y",), symbolic=symbolic))
    return module, GraphSession(unroll(traced.model, "t", SLOTS, "valid"), threads=1)


@pytest.mark.parametrize("name", MODULES)
@settings(max_examples=15, deadline=None)
@given(filled=st.sets(st.integers(0, SLOTS - 1), min_size=1), garbage=st.sampled_from([0.0, np.nan, np.inf, 1e30]))
def test_any_filled_slots_give_what_the_module_gives_for_them_alone(
    name: str, filled: set[int], garbage: float
) -> None:
    module, session = unrolled(name)
    torch.manual_seed(1)
    feeds = {"query": torch.randn(OBJECTS, 3, 8), "cache": torch.randn(OBJECTS, SLOTS, 6)}
    if name == "ages":
        feeds["age"] = torch.randint(0, 4, (OBJECTS, SLOTS))
    places = sorted(filled)
    with torch.inference_mode():
        wanted = module(*(x if n == "query" else x[:, places] for n, x in feeds.items())).numpy()
    valid = np.isin(np.arange(SLOTS), places)[None].repeat(OBJECTS, 0)
    feeds["cache"][~torch.from_numpy(valid)] = garbage
    found = session.run({**{n: x.numpy() for n, x in feeds.items()}, "valid": valid})["y"]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


CACHE = """(float[2,1,4] q, float[2,t,4] cache) => (float[2,1,4] y) {
    keys = Transpose <perm = [0, 2, 1]> (cache)
    logits = MatMul(q, keys)
    weights = Softmax(logits)
    y = MatMul(weights, cache)
}"""


def test_the_ports_are_the_models_and_the_flags() -> None:
    model = unroll(model_of(CACHE), "t", 3, "filled")
    assert [f"{value.name}{value.shape}" for value in model.graph.inputs] == ["q[2,1,4]", "cache[2,3,4]", "filled[2,3]"]
    assert [f"{value.name}{value.shape}" for value in model.graph.outputs] == ["y[2,1,4]"]
    assert "Attention" not in {node.op_type for node in model.graph}


def test_the_model_given_stays_as_it_was() -> None:
    model = model_of(CACHE)
    before = ir.to_onnx_text(model)
    unroll(model, "t", 3, "filled")
    assert ir.to_onnx_text(model) == before


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        (CACHE, ("s", 3, "valid"), "no input has the symbolic dimension 's'; known: t"),
        (CACHE, ("t", 0, "valid"), "'t' is bound to 0; expected 1 or more places"),
        (CACHE, ("t", 3, "cache"), "the new input 'cache' of 't' exists already"),
        (
            CACHE.replace("Softmax(logits)", "LogSoftmax(logits)"),
            ("t", 3, "valid"),
            r"node .*\(LogSoftmax → 'weights'\) keeps the places of 't' apart: it works along axis 2",
        ),
    ],
)
def test_what_cannot_be_unrolled_is_said_with_the_place(
    text: str, arguments: tuple[str, int, str], message: str
) -> None:
    with pytest.raises(PassDeclinedError, match=message):
        unroll(model_of(text), *arguments)
