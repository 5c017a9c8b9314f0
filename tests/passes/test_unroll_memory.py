from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.passes.evaluation import run_model
from samonnx.passes.interface import Array, PassDeclinedError
from samonnx.passes.lower.onnx import LowerOnnx
from samonnx.passes.symbol_binding import bind_symbols
from samonnx.passes.unroll_memory import UnrollMemory
from tests.passes.attention_oracle import largest_error, reference, typed
from tests.passes.graph_text import body_of, model_of

OBJECTS, CELLS, WIDTH = 2, 3, 4
# Keys: slots of CELLS cells each, one constant token, pointers.
MEMORY = """(float[2,1,5,4] q, float[2,n,3,4] memory, float[2,p,4] pointers) => (float[2,1,5,4] y)
<int64[3] flat = {0, -1, 4}, int64[1] one = {1}, float[2,1,4] token = {1,2,3,4,4,3,2,1}> {
    cells = Reshape(memory, flat)
    tokens = Concat <axis = 1> (cells, token, pointers)
    k = Unsqueeze(tokens, one)
    v = Neg(k)
    y = Attention(q, k, v)
}"""
CACHE = "(float[1,1,2,4] q, float[1,1,t,4] cache) => (float[1,1,2,4] y) { y = Attention(q, cache, cache) }"
BOTH = UnrollMemory({"n": 3, "p": 4}, {"n": "memory_valid", "p": "pointer_valid"})
CACHED = UnrollMemory({"t": 6}, {"t": "valid"})


def unrolled(text: str, pass_: UnrollMemory = BOTH) -> ir.Model:
    model = typed(text)
    assert pass_(model).modified
    return model


def lowered(model: ir.Model) -> ir.Model:
    LowerOnnx()(model)
    return model


def filled_only(feeds: Mapping[str, Array], row: int) -> dict[str, Array]:
    """The feeds of the symbolic graph for one object."""
    memory, pointers = feeds["memory_valid"][row], feeds["pointer_valid"][row]
    return {"q": feeds["q"], "memory": feeds["memory"][:, memory], "pointers": feeds["pointers"][:, pointers]}


def memory_feeds(seed: int, keep: float = 0.5, garbage: float = 0.0) -> dict[str, Array]:
    generator = np.random.default_rng(seed)
    feeds: dict[str, Array] = {
        name: generator.standard_normal(shape).astype(np.float32)
        for name, shape in (("q", (2, 1, 5, 4)), ("memory", (2, 3, CELLS, 4)), ("pointers", (2, 4, 4)))
    }
    feeds["memory_valid"] = generator.random((2, 3)) < keep
    feeds["pointer_valid"] = generator.random((2, 4)) < keep
    feeds["memory"][~feeds["memory_valid"]] = garbage
    feeds["pointers"][~feeds["pointer_valid"]] = garbage
    return feeds


def test_the_graph_before_and_after() -> None:
    model = unrolled(CACHE, CACHED)
    assert [f"{value.name}{value.shape}" for value in model.graph.inputs] == [
        "q[1,1,2,4]",
        "cache[1,1,6,4]",
        "valid[1,6]",
    ]
    assert body_of(model) == [
        "memory_mask/Where_0 = Where(valid, memory_mask/zero, memory_mask/masked)",
        "memory_mask/Unsqueeze_1 = Unsqueeze(memory_mask/Where_0, memory_mask/heads and queries)",
        "cache/filled/Reshape_0 = Reshape(valid, cache/filled/aligned)",
        "cache/filled/Where_1 = Where(cache/filled/Reshape_0, cache, cache/filled/zero)",
        "y = Attention(q, cache/filled/Where_1, cache/filled/Where_1, memory_mask/Unsqueeze_1)",
    ]


def test_all_shapes_are_static_and_every_attention_shares_one_mask() -> None:
    model = unrolled(MEMORY.replace("y = Attention(q, k, v)", "x = Attention(q, k, v) y = Attention(x, k, v)"))
    assert all(output.shape is not None and output.shape.is_static() for node in model.graph for output in node.outputs)
    masks = {node.inputs[3] for node in model.graph if node.op_type == "Attention"}
    assert len(masks) == 1
    assert str(masks.pop().shape) == "[2,1,1,14]"  # type: ignore[union-attr]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 999), keep=st.floats(0, 1), garbage=st.sampled_from([0, 1e30, np.nan, np.inf, -np.inf, 1e-40])
)
def test_padded_slots_equal_a_shorter_memory_whatever_lies_in_them(seed: int, keep: float, garbage: float) -> None:
    feeds = memory_feeds(seed, keep, garbage)
    found = run_model(_lowered_memory(), feeds)["y"]
    for row in range(OBJECTS):
        alone = filled_only(feeds, row)
        symbolic = typed(MEMORY)
        bind_symbols(symbolic, {"n": alone["memory"].shape[1], "p": alone["pointers"].shape[1]})
        wanted = reference(symbolic, alone)["y"]
        assert np.abs(found[row] - wanted[row]).max() <= 1e-5 * np.abs(wanted[row]).max()


@functools.cache
def _lowered_memory() -> ir.Model:
    return lowered(unrolled(MEMORY))


@given(seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_garbage_changes_no_bit(seed: int) -> None:
    outputs = [
        run_model(_lowered_memory(), memory_feeds(seed, 0.5, garbage))["y"].tobytes() for garbage in (0, np.nan, 7)
    ]
    assert len(set(outputs)) == 1


@given(seed=st.integers(0, 99), order=st.permutations(range(3)))
@settings(max_examples=20, deadline=None)
def test_the_order_of_slots_does_not_matter(seed: int, order: list[int]) -> None:
    feeds = memory_feeds(seed)
    moved = feeds | {name: feeds[name][:, order] for name in ("memory", "memory_valid")}
    model = _lowered_memory()
    assert largest_error(run_model(model, feeds), run_model(model, moved)) <= 1e-5


def test_an_object_without_any_filled_place_is_finite_and_disturbs_nobody() -> None:
    model = lowered(unrolled(MEMORY.replace("cells, token, pointers", "cells, pointers")))
    feeds = memory_feeds(0, 1.0)
    both = run_model(model, feeds)["y"]
    feeds["memory_valid"][1] = feeds["pointer_valid"][1] = False
    feeds["memory"][1] = feeds["pointers"][1] = np.nan
    one = run_model(model, feeds)["y"]
    assert np.isfinite(one).all()
    np.testing.assert_array_equal(one[0], both[0])


def test_a_symbol_without_validity_is_always_filled() -> None:
    model = unrolled(MEMORY, UnrollMemory({"n": 3, "p": 4}, {"n": "memory_valid"}))
    feeds = memory_feeds(1)
    feeds["pointer_valid"][:] = True
    wanted = run_model(_lowered_memory(), feeds)
    feeds.pop("pointer_valid")
    assert largest_error(wanted, run_model(lowered(model), feeds)) <= 1e-6


def test_the_attentions_own_mask_is_added() -> None:
    text = MEMORY.replace("=> (float", ", float[2,1,5,1] m) => (float", 1).replace("pointers)", "pointers", 1)
    model = unrolled(text.replace("y = Attention(q, k, v)", "y = Attention(q, k, v, m)"))
    node = next(node for node in model.graph if node.op_type == "Attention")
    mask = node.inputs[3]
    assert mask is not None
    assert mask.producer().op_type == "Add"  # type: ignore[union-attr]
    assert str(mask.shape) == "[2,1,5,14]"


def test_a_network_with_a_growing_cache_is_unrolled_over_its_steps() -> None:
    """Attention of a recurrent cell over the states so far, the states on axis 0."""
    text = """(float[1,4] x, float[t,4] states, float[4,4] w) => (float[1,4] next, float[1,4] read)
    <int64[2] front = {0, 1}> {
        h = MatMul(x, w)
        next = Tanh(h)
        keys = MatMul(states, w)
        k = Unsqueeze(keys, front)
        v = Unsqueeze(states, front)
        q = Unsqueeze(next, front)
        a = Attention(q, k, v)
        read = Squeeze(a, front)
    }"""
    model = lowered(unrolled(text, UnrollMemory({"t": 5}, {"t": "valid"})))
    generator = np.random.default_rng(0)
    x, w = generator.standard_normal((1, 4)).astype(np.float32), generator.standard_normal((4, 4)).astype(np.float32)
    states = np.full((5, 4), np.nan, np.float32)
    valid = np.zeros((1, 5), bool)
    for step in range(1, 6):
        states[step - 1], valid[0, step - 1] = generator.standard_normal(4), True
        short = typed(text)
        bind_symbols(short, {"t": step})
        wanted = reference(short, {"x": x, "w": w, "states": states[:step]})
        found = run_model(model, {"x": x, "w": w, "states": states, "valid": valid})
        assert largest_error(wanted, found) <= 1e-5


def test_splits_transposes_gathers_and_norms_keep_the_slots_apart() -> None:
    text = """(float[2,1,5,4] q, float[2,n,6,8] memory, float[10,4] table, int64[2,n] age) => (float[2,1,5,4] y)
    <int64[4] tokens = {2, 1, -1, 4}, float[4] g = {1, 2, 3, 4}, int64[1] two = {2}> {
        a, b = Split <axis = 3, num_outputs = 2> (memory)
        late = Transpose <perm = [0, 2, 1, 3]> (b)
        back = Transpose <perm = [0, 2, 1, 3]> (late)
        n0 = LayerNormalization(a, g)
        weights = Softmax <axis = 2> (back)
        mean = ReduceMean <keepdims = 1> (weights, two)
        sum = Add(n0, mean)
        old = Gather <axis = 0> (table, age)
        column = Unsqueeze(old, two)
        dated = Add(sum, column)
        k = Reshape(dated, tokens)
        v = Reshape(b, tokens)
        y = Attention(q, k, v)
    }"""
    model = lowered(unrolled(text, UnrollMemory({"n": 4}, {"n": "valid"})))
    generator = np.random.default_rng(0)
    feeds: dict[str, Array] = {
        "q": generator.standard_normal((2, 1, 5, 4)).astype(np.float32),
        "memory": generator.standard_normal((2, 4, 6, 8)).astype(np.float32),
        "table": generator.standard_normal((10, 4)).astype(np.float32),
        "age": generator.integers(0, 10, (2, 4)),
    }
    valid = np.array([[1, 0, 1, 0], [0, 1, 0, 1]], bool)
    found = run_model(model, feeds | {"valid": valid})["y"]
    short = typed(text)
    bind_symbols(short, {"n": 2})
    few = feeds | {name: np.stack([feeds[name][o][valid[o]] for o in range(2)]) for name in ("memory", "age")}
    assert largest_error(reference(short, few), {"y": found}) <= 1e-5


def _ending(nodes: str) -> str:
    return MEMORY.replace("y = Attention(q, k, v)", nodes)


LAST = "y = Attention(q, k, v)"
CONSTANTS = "int64[1] zero = {0}, int64[1] two = {2}, int64[1] five = {5}, int64[1] end = {9999999}, float[1] w = {1}"
REFUSALS = [
    ("a mean over slots", LAST, "m = ReduceMean(v, two) y = Attention(m, k, v)", "along axis 2, which holds the slots"),
    (
        "an attention that was not fused",
        LAST,
        "t = Transpose <perm = [0, 1, 3, 2]> (k) l = MatMul(q, t) s = Softmax(l) y = MatMul(s, v)",
        r"\(Softmax → 's'\) keeps the places of 'n', 'p' apart: it works along axis 3",
    ),
    (
        "a product that sums over slots",
        LAST,
        "t = Transpose <perm = [0, 1, 3, 2]> (k) g = MatMul(t, v) y = MatMul(q, g)",
        "it sums over the slots .*run fuse_attention first",
    ),
    (
        "a number of keys that enters arithmetic",
        LAST,
        "s = Shape <start = 2, end = 3> (k) f = Cast <to = 1> (s) h = Div(v, f) y = Attention(q, k, h)",
        "computes with a number of slots",
    ),
    (
        "values in another order",
        LAST,
        "e = Concat <axis = 1> (pointers, token, cells) u = Unsqueeze(e, one) y = Attention(q, k, u)",
        "hold the slots in different places",
    ),
    ("causal attention", LAST, "y = Attention <is_causal = 1> (q, k, v)", "causal attention"),
    ("a sort", LAST, "a, b = TopK <axis = 2> (k, one) y = Attention(q, a, a)", "not known to keep them apart"),
    (
        "queries made of slots",
        LAST,
        "y0 = Attention(k, k, v) y = Slice(y0, zero, five, two)",
        "the queries or the mask hold slots",
    ),
    (
        "the first slot only",
        LAST,
        "s = Slice(cells, zero, one, one) u = Unsqueeze(s, one) y = Attention(q, u, u)",
        "cuts through the slots of 'n'",
    ),
    ("every second place", LAST, "u = Slice(k, zero, end, two, two) y = Attention(q, u, u)", "in another order"),
    (
        "objects merged with slots",
        "cells = Reshape(memory, flat)",
        "all = Reshape(memory, merged) cells = Reshape(all, apart)",
        "with the slots behind it",
    ),
    (
        "a table as long as the memory, attended",
        LAST,
        "s = Shape(k) e = Expand(w, s) y = Attention(q, e, e)",
        "as long as the memory, but does not come from it",
    ),
    ("objects that mix", LAST, "m = ReduceMean(k, zero) y = Attention(q, m, m)", "axis 0, which holds the objects"),
    ("a boolean mask of its own", LAST, "b = Cast <to = 9> (q) y = Attention(q, k, v, b)", "its own mask is boolean"),
]


@pytest.mark.parametrize(("what", "old", "new", "reason"), REFUSALS, ids=[row[0] for row in REFUSALS])
def test_it_declines_what_it_cannot_prove_and_leaves_the_graph_alone(
    what: str, old: str, new: str, reason: str
) -> None:
    extra = f"int64[1] one = {{1}}, {CONSTANTS}, int64[3] merged = {{1, -1, 4}}, int64[3] apart = {{2, -1, 4}}"
    text = MEMORY.replace(old, new).replace("int64[1] one = {1}", extra)
    model = model_of(text)
    before = ir.to_onnx_text(model)
    with pytest.raises(PassDeclinedError, match=reason):
        BOTH.call(model)
    assert ir.to_onnx_text(model) == before, what


@pytest.mark.parametrize(
    ("pass_", "reason"),
    [
        (UnrollMemory({"m": 3}), "no input has the symbolic dimension 'm'; known: n, p"),
        (UnrollMemory({"n": 0}), "'n' is bound to 0; expected 1 or more places"),
        (UnrollMemory({"n": 2}, {"p": "valid"}), r"validity of 'p', which is not bound: \['n'\]"),
        (UnrollMemory({"n": 2}, {"n": "pointers"}), "the new input 'pointers' of 'n' exists already"),
        (UnrollMemory(dict.fromkeys("abcde", 1) | {"n": 1}), "no input has the symbolic dimension 'a'"),
    ],
)
def test_options_that_do_not_fit_are_explained(pass_: UnrollMemory, reason: str) -> None:
    with pytest.raises(PassDeclinedError, match=reason):
        pass_.call(typed(MEMORY))


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        (
            "float[2,n,3,4] memory, float[1,p,4] pointers",
            r"differ in their number of objects \(axis 0\): \{'memory': 2, 'pointers': 1\}",
        ),
        ("float[2,n,p,4] memory, float[2,p,4] pointers", "input 'memory' .* has two memory axes"),
        ("float[b,n,3,4] memory, float[2,p,4] pointers", "input 'memory' .* has a symbol that is not bound"),
    ],
)  # fmt: skip
def test_inputs_of_another_form_are_explained(inputs: str, reason: str) -> None:
    text = f"(float[2,1,5,4] q, {inputs}) => (float[2,1,5,4] y) {{ y = Neg(q) }}"
    with pytest.raises(PassDeclinedError, match=reason):
        BOTH.call(typed(text))


def test_without_bindings_nothing_happens() -> None:
    assert not UnrollMemory()(typed(MEMORY)).modified


def test_feeds_before_move_the_filled_places_together() -> None:
    feeds = memory_feeds(0) | {
        "memory_valid": np.array([[1, 0, 1], [0, 1, 1]], bool),
        "pointer_valid": np.array([[1, 0, 0, 0], [0, 0, 0, 1]], bool),
    }
    before = BOTH.feeds_before(feeds, typed(MEMORY))
    assert sorted(before) == ["memory", "pointers", "q"]
    np.testing.assert_array_equal(before["memory"][1], feeds["memory"][1, 1:])
    np.testing.assert_array_equal(before["pointers"][1], feeds["pointers"][1, 3:])
    symbolic = typed(MEMORY)
    bind_symbols(symbolic, {"n": 2, "p": 1})
    assert largest_error(reference(symbolic, before), run_model(_lowered_memory(), feeds)) <= 1e-5


def test_feeds_before_need_the_same_number_of_filled_places_for_every_object() -> None:
    feeds = memory_feeds(0) | {"memory_valid": np.array([[1, 0, 1], [0, 1, 0]], bool)}
    with pytest.raises(PassDeclinedError, match=r"'memory_valid' fills \[1, 2\] places an object"):
        BOTH.feeds_before(feeds, typed(MEMORY))


class TracedMemory(torch.nn.Module):
    """Two memories of one layer as in the tracker: rotated slots, plain pointers, one head."""

    def __init__(self) -> None:
        super().__init__()
        self.k = torch.nn.Linear(WIDTH, 8)
        self.v = torch.nn.Linear(WIDTH, 8)
        self.register_buffer("cosine", torch.linspace(-1, 1, CELLS * 4).reshape(CELLS, 4))

    def forward(self, q: torch.Tensor, memory: torch.Tensor, pointers: torch.Tensor) -> torch.Tensor:
        cells = self.k(memory).flatten(1, 2)
        pairs = cells.unflatten(-1, (4, 2))
        table = self.get_buffer("cosine").repeat(memory.shape[1], 1)
        turned = torch.stack((pairs[..., 0] * table, pairs[..., 1] - table), -1).flatten(-2)
        key = torch.cat((turned, self.k(pointers)), 1)
        value = self.v(torch.cat((memory.flatten(1, 2), pointers), 1))
        attended: torch.Tensor = F.scaled_dot_product_attention(q[:, None], key[:, None], value[:, None])
        return attended[:, 0]


def test_a_module_traced_over_symbolic_slots_equals_torch_on_the_filled_ones() -> None:
    torch.manual_seed(0)
    module = TracedMemory().eval()
    slots, tokens = torch.export.Dim("n", min=1, max=64), torch.export.Dim("p", min=1, max=64)
    examples = (torch.rand(2, 5, 8), torch.rand(2, 5, CELLS, WIDTH), torch.rand(2, 7, WIDTH))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module, examples, dynamo=True, opset_version=23, dynamic_shapes=({}, {1: slots}, {1: tokens}), verbose=False
        )
    assert program is not None
    BOTH(program.model)
    generator = np.random.default_rng(0)
    feeds = memory_feeds(3, 0.6, np.nan)
    feeds["memory_valid"][:, 0] = feeds["pointer_valid"][:, 0] = True
    feeds["memory"] = np.where(feeds["memory_valid"][..., None, None], np.nan_to_num(feeds["memory"]), np.nan)
    feeds["pointers"] = np.where(feeds["pointer_valid"][..., None], np.nan_to_num(feeds["pointers"]), np.nan)
    feeds["q"] = generator.standard_normal((2, 5, 8)).astype(np.float32)
    (found,) = run_model(lowered(program.model), feeds).values()
    with torch.no_grad():
        for row in range(OBJECTS):
            few = [array[row : row + 1] for array in filled_only(feeds, row).values()]
            wanted = module(*map(torch.from_numpy, few)).numpy()
            np.testing.assert_allclose(found[row : row + 1], wanted, atol=1e-6)
