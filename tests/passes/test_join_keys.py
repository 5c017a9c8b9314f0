from __future__ import annotations

import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.passes.join_keys import JoinKeys
from samonnx.passes.mask_as_channel import MaskAsChannel
from tests.passes.attention_oracle import TOLERANCE, largest_error, random_feeds, reference, typed
from tests.passes.rotary_graphs import ANY_DTYPE, MEMORY_WEIGHTS, first_row_still, memory_attention, operators

MASKED = MaskAsChannel(least_pairs=1)


def fused(text: str, seed: int = 0) -> ir.Model:
    model = first_row_still(typed(text, *MEMORY_WEIGHTS, seed=seed))
    assert ANY_DTYPE(model).modified
    return model


def key_of(model: ir.Model) -> ir.Value:
    key = next(node for node in model.graph if node.op_type == "Attention").inputs[1]
    assert key is not None
    return key


def test_one_product_and_one_rotation_make_the_keys_with_their_mask() -> None:
    model = fused(memory_attention("float", 1, 2, 5, 3))
    MASKED(model)
    assert JoinKeys()(model).modified
    chain, value = [], key_of(model)
    while (node := value.producer()) is not None and node.op_type != "Concat":
        chain.append(node.op_type)
        assert node.inputs[0] is not None
        value = node.inputs[0]
    assert chain == ["Reshape", "RotaryEmbedding", "Reshape", "MatMul"]
    assert str(value.shape) == "[1,13,5]"  # 3 channels, the mask, 1
    assert not JoinKeys()(model).modified


@settings(max_examples=40, deadline=None)
@given(
    dtype=st.sampled_from(["float", "double"]),
    objects=st.integers(1, 3),
    slots=st.integers(1, 3),
    cells=st.integers(1, 5),
    pointers=st.integers(1, 4),
    masked=st.booleans(),
    biased=st.booleans(),
    seed=st.integers(0, 99),
)
def test_joined_keys_equal_projected_and_then_joined_ones(
    dtype: str, objects: int, slots: int, cells: int, pointers: int, masked: bool, biased: bool, seed: int
) -> None:
    text = memory_attention(dtype, objects, slots, cells, pointers, masked=masked, biased=biased)
    if not biased:
        text = text.replace("k1 = Identity(k0)", "").replace("(k1,", "(k0,").replace("p1 = Identity(p0)", "")
        text = text.replace("(k2, p1)", "(k2, p0)")
    model = fused(text, seed)
    feeds = random_feeds(model, seed)
    wanted = reference(model, feeds)
    if masked and dtype == "float":
        MASKED(model)
    assert JoinKeys()(model).modified
    assert largest_error(wanted, reference(model, feeds)) <= TOLERANCE[dtype]


def test_masked_keys_stay_masked() -> None:
    model = fused(memory_attention("float", 1, 2, 5, 3))
    feeds = random_feeds(model, 1)
    feeds["m"][:] = 0
    feeds["m"][..., 4:9] = -1e30
    wanted = reference(model, feeds)
    MASKED(model)
    assert JoinKeys()(model).modified
    assert largest_error(wanted, reference(model, feeds)) <= 1e-5
    feeds["v"][:, :, 4:9] = 1e6  # what lies under a masked key is inert
    assert largest_error(wanted, reference(model, feeds)) <= 1e-5


def test_layers_with_the_same_memory_share_the_joined_input_and_the_tables() -> None:
    text = memory_attention("float", 1, 2, 5, 3)
    body = text[text.index("> {") + 3 : text.rindex("}")].replace("one)", "ONE)")
    again = body
    for name in ("q0", "q1", "q2", "q", "k0", "k1", "k2", "k3", "k", "p0", "p1", "y"):
        for end in ("p", "f", "z", "o", "l", "x", "r", "i", "rc", "is", "d", "rs", "ic", "t", "u", "v", "k"):
            if name in ("q2", "k2"):
                again = again.replace(f"{name}{end} ", f"n{name}{end} ").replace(f"{name}{end},", f"n{name}{end},")
                again = again.replace(f"{name}{end})", f"n{name}{end})")
        for after in (" =", ",", ")"):
            for before in (" ", "("):
                again = again.replace(f"{before}{name}{after}", f"{before}n{name}{after}")
    again = again.replace("wk)", "wk2)")
    both = text[: text.index("> {") + 3] + body.replace("ONE", "one") + again.replace("ONE", "one") + "}"
    both = both.replace("[1, 1, 5, 2] y)", "[1, 1, 5, 2] y, float[1, 1, 5, 2] ny)").replace(
        "float[4] bk,", "float[4] bk, float[3, 4] wk2,"
    )
    model = first_row_still(typed(both, *MEMORY_WEIGHTS, "wk2"))
    ANY_DTYPE(model)
    feeds = random_feeds(model, 0)
    wanted = reference(model, feeds)
    assert JoinKeys()(model).modified
    products = [node for node in model.graph if node.op_type == "MatMul" and "keys" in str(node.name)]
    assert len(products) == 2
    assert products[0].inputs[0] is products[1].inputs[0]
    turned = [node for node in model.graph if node.op_type == "RotaryEmbedding" and "keys" in str(node.name)]
    assert list(turned[0].inputs[1:]) == list(turned[1].inputs[1:])
    assert largest_error(wanted, reference(model, feeds)) <= 1e-5


@pytest.mark.parametrize(
    ("what", "old", "new"),
    [
        ("another projection of the pointers", "p0 = MatMul(pointers, wk)", "p0 = MatMul(pointers, wq3)"),
        ("another bias of the pointers", "p1 = Add(p0, bk)", "p1 = Add(p0, bq)"),
        ("an activation in front of the join", "p1 = Add(p0, bk)", "p2 = Add(p0, bk) p1 = Relu(p2)"),
        ("keys that others read", "k = Unsqueeze(k3, one)", "k = Unsqueeze(k3, one) z = Neg(k3)"),
        ("a projection that others read", "k = Unsqueeze(k3, one)", "k = Unsqueeze(k3, one) z = Neg(p1)"),
        ("a join along the channels", "Concat <axis = 1> (k2, p1)", "Concat <axis = 2> (k2, k2)"),
    ],
)
def test_it_declines(what: str, old: str, new: str) -> None:
    text = memory_attention("float", 1, 2, 5, 3, masked=False)
    assert text.count(old) == 1
    text = text.replace(old, new).replace("float[3, 4] wk,", "float[3, 4] wk, float[3, 4] wq3,")
    if "z = Neg(k3)" in new:
        text = text.replace("[1, 1, 5, 2] y)", "[1, 1, 5, 2] y, float[1, 13, 4] z)")
    if "z = Neg(p1)" in new:
        text = text.replace("[1, 1, 5, 2] y)", "[1, 1, 5, 2] y, float[1, 3, 4] z)")
    if "axis = 2" in new:  # queries of 8 channels, half of them 0, and a value for each key
        text = text.replace("[1, 1, 13, 2] v", "[1, 1, 10, 2] v").replace("q = Unsqueeze(q2, one)", "q3 = Concat "
            "<axis = 2> (q2, q2) q = Unsqueeze(q3, one)")  # fmt: skip
    model = first_row_still(typed(text, *MEMORY_WEIGHTS, "wq3"))
    ANY_DTYPE(model)
    assert not JoinKeys()(model).modified, what


def test_tables_without_angle_zero_and_weights_that_are_inputs_stay() -> None:
    text = memory_attention("float", 1, 2, 5, 3)
    still = typed(text, *MEMORY_WEIGHTS)
    ANY_DTYPE(still)
    assert not JoinKeys()(still).modified
    given = first_row_still(typed(text, "wq", "bq", "bk", "c", "s"))
    ANY_DTYPE(given)
    assert not JoinKeys()(given).modified


def test_a_projection_that_does_not_widen_stays() -> None:
    text = memory_attention("float", 1, 2, 5, 3)
    narrow = text.replace("float[3, 4] wk", "float[4, 4] wk").replace("5, 3] memory", "5, 4] memory")
    narrow = narrow.replace("3, 3] pointers", "3, 4] pointers")
    assert JoinKeys()(fused(text)).modified
    assert not JoinKeys()(fused(narrow)).modified


def test_what_is_joined_already_stays() -> None:
    model = fused(memory_attention("float", 1, 2, 5, 3, masked=False))
    before = operators(model)
    assert JoinKeys()(model).modified
    after = operators(model)
    assert after.count("MatMul") == before.count("MatMul") - 1
    assert after.count("Add") == before.count("Add") - 2  # the biases are rows of the weight
    assert not JoinKeys()(model).modified
