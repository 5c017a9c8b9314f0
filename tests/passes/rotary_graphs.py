"""Graphs with rotary embeddings as torch traces them, as text."""

from __future__ import annotations

import onnx_ir as ir

from samonnx.passes.fuse_rotary import FuseRotary

ANY_DTYPE = FuseRotary(dtypes=(ir.DataType.FLOAT, ir.DataType.DOUBLE))
"""The operator's schema has no float64; the reference evaluator computes it all the same."""


def dims(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))


def rotation(source: str, result: str, shape: tuple[int, ...], final: tuple[int, ...] | None = None) -> str:
    """Nodes that turn `source` of `shape` [..., tokens, channels] by the tables c and s into `result` of `final`."""
    pairs = (*shape[:-1], shape[-1] // 2, 2)
    t = result
    return f"""
    {t}p = Constant <value = int64[{len(pairs)}] {{{dims(pairs)}}}> ()
    {t}f = Constant <value = int64[{len(final or shape)}] {{{dims(final or shape)}}}> ()
    {t}z = Constant <value = int64 {{0}}> ()
    {t}o = Constant <value = int64 {{1}}> ()
    {t}l = Constant <value = int64[1] {{-1}}> ()
    {t}x = Reshape({source}, {t}p)
    {t}r = Gather <axis = {len(pairs) - 1}> ({t}x, {t}z)
    {t}i = Gather <axis = {len(pairs) - 1}> ({t}x, {t}o)
    {t}rc = Mul({t}r, c)
    {t}is = Mul({t}i, s)
    {t}d = Sub({t}rc, {t}is)
    {t}rs = Mul({t}r, s)
    {t}ic = Mul({t}i, c)
    {t}t = Add({t}rs, {t}ic)
    {t}u = Unsqueeze({t}d, {t}l)
    {t}v = Unsqueeze({t}t, {t}l)
    {t}k = Concat <axis = -1> ({t}u, {t}v)
    {result} = Reshape({t}k, {t}f)
    """


def first_row_still(model: ir.Model) -> ir.Model:
    """Position 0 has angle 0, as in the tables of a grid."""
    for name, number in (("c", 1), ("s", 0)):
        value = model.graph.initializers[name]
        assert value.const_value is not None
        array = value.const_value.numpy().copy()
        array[0] = number
        value.const_value = ir.tensor(array, name=name)
    return model


def memory_attention(
    dtype: str, objects: int, slots: int, cells: int, pointers: int, *, masked: bool = True, biased: bool = True
) -> str:
    """Queries attend turned memories, and pointers that are not turned; keys have 3 channels before and 4 behind their
    projection, values 2."""
    keys = slots * cells + pointers
    add = "Add({0}, {1})" if biased else "Identity({0})"
    mask = f", {dtype}[{objects}, 1, 1, {keys}] m" if masked else ""
    return f"""({dtype}[{objects}, {cells}, 6] x, {dtype}[{objects}, {slots}, {cells}, 3] memory,
        {dtype}[{objects}, {pointers}, 3] pointers, {dtype}[{objects}, 1, {keys}, 2] v{mask},
        {dtype}[6, 4] wq, {dtype}[4] bq, {dtype}[3, 4] wk, {dtype}[4] bk,
        {dtype}[{cells}, 2] c, {dtype}[{cells}, 2] s) => ({dtype}[{objects}, 1, {cells}, 2] y)
    <int64[1] one = {{1}}> {{
        q0 = MatMul(x, wq)
        q1 = Add(q0, bq)
        {rotation("q1", "q2", (objects, cells, 4))}
        q = Unsqueeze(q2, one)
        k0 = MatMul(memory, wk)
        k1 = {add.format("k0", "bk")}
        {rotation("k1", "k2", (objects, slots, cells, 4), (objects, slots * cells, 4))}
        p0 = MatMul(pointers, wk)
        p1 = {add.format("p0", "bk")}
        k3 = Concat <axis = 1> (k2, p1)
        k = Unsqueeze(k3, one)
        y = Attention <scale = 0.5> (q, k, v{", m" if masked else ""})
    }}"""


MEMORY_WEIGHTS = ("wq", "bq", "wk", "bk", "c", "s")


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph if node.op_type != "Constant"]
