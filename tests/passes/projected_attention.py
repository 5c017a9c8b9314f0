"""Multi-head attention with its projections, as a mask decoder has it, and the law of passes that rearrange it."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir
from hypothesis import strategies as st

from samonnx.passes import EliminateDead, GraphPass, assert_exact, graph_statistics
from samonnx.passes.graph_values import static_shape
from tests.passes.attention_oracle import typed

__all__ = ["MASKS", "ProjectedAttention", "assert_law", "shapes_are_known", "sizes"]

MASKS = {
    "": "",
    "float a key": "{dtype}[{batch},1,1,{keys}] m",
    "float a head": "{dtype}[1,{heads},1,{keys}] m",
    "bool a key": "bool[{batch},1,1,{keys}] m",
    "bool for all": "bool[1,1,1,{keys}] m",
    "expanded": "bool[{batch},1,1,{keys}] m",
    "float a query": "{dtype}[1,1,{queries},{keys}] m",
    "bool a query": "bool[{batch},1,{queries},{keys}] m",
}
"""Kind → the input in ONNX text; an expanded one becomes [batch, heads, queries, keys]."""


@dataclass(frozen=True)
class ProjectedAttention:
    """y = merged heads of softmax(scale · q kᵀ + mask) v, times z, plus c; and q = qx · qw + qb cut into heads, k and v
    likewise. `single` are those of q, k and v that are made once and expanded along the batch, `bare` those without
    bias; `scale` is the attribute or nothing."""

    batch: int = 1
    heads: int = 2
    queries: int = 2
    keys: int = 40
    channels: int = 4
    value_channels: int = 4
    width: int = 6
    value_width: int = 5
    out: int = 6
    mask: str = ""
    single: frozenset[str] = frozenset()
    bare: frozenset[str] = frozenset()
    scale: str = "<scale = 0.3>"
    dtype: str = "float"

    @property
    def text(self) -> str:
        """Inputs qx, kx, vx and, with a mask, m; the rest are weights."""
        mask = MASKS[self.mask].format(dtype=self.dtype, batch=self.batch, heads=self.heads, **self._tokens)
        inputs, body = [], []
        for name, rows, width, channels in (
            ("q", self.queries, self.width, self.channels),
            ("k", self.keys, self.width, self.channels),
            ("v", self.keys, self.value_width, self.value_channels),
        ):
            batch = 1 if name in self.single else self.batch
            whole = self.heads * channels
            inputs += [f"{self.dtype}[{batch},{rows},{width}] {name}x", f"{self.dtype}[{width},{whole}] {name}w"]
            inputs.append(f"{self.dtype}[{whole}] {name}b")
            body.append(f"{name}p = MatMul({name}x, {name}w)")
            body.append(f"{name}s = Identity({name}p)" if name in self.bare else f"{name}s = Add({name}p, {name}b)")
            body.append(f"{name}r = Reshape({name}s, {name}cut)")
            body.append(f"{name}t = Transpose <perm = [0, 2, 1, 3]> ({name}r)")
            body.append(
                f"{name} = Expand({name}t, {name}all)" if batch != self.batch else f"{name} = Identity({name}t)"
            )
        if self.mask == "expanded":
            body.append("mask = Expand(m, square)")
        elif mask:
            body.append("mask = Identity(m)")
        body.append(f"a = Attention {self.scale} (q, k, v{', mask' if mask else ''})")
        body.append("t = Transpose <perm = [0, 2, 1, 3]> (a) r = Reshape(t, merged) p = MatMul(r, z) y = Add(p, c)")
        inputs += [f"{self.dtype}[{self.heads * self.value_channels},{self.out}] z", f"{self.dtype}[{self.out}] c"]
        inputs += [mask] * bool(mask)
        return (
            f"({', '.join(inputs)}) => ({self.dtype}[{self.batch},{self.queries},{self.out}] y)"
            f" <{self._shapes}> {{ {' '.join(body)} }}"
        )

    @property
    def _tokens(self) -> dict[str, int]:
        return {"queries": self.queries, "keys": self.keys}

    @property
    def _shapes(self) -> str:
        constants = {
            "qcut": (1 if "q" in self.single else self.batch, self.queries, self.heads, self.channels),
            "kcut": (1 if "k" in self.single else self.batch, self.keys, self.heads, self.channels),
            "vcut": (1 if "v" in self.single else self.batch, self.keys, self.heads, self.value_channels),
            "qall": (self.batch, 1, 1, 1),
            "kall": (self.batch, 1, 1, 1),
            "vall": (self.batch, 1, 1, 1),
            "square": (self.batch, self.heads, self.queries, self.keys),
            "merged": (self.batch, self.queries, self.heads * self.value_channels),
        }
        return ", ".join(
            f"int64[{len(shape)}] {name} = {{{', '.join(map(str, shape))}}}" for name, shape in constants.items()
        )

    def model(self, *changes: tuple[str, str], seed: int = 0) -> ir.Model:
        """With (old, new) replaced in its text; without Identity nodes, as the pipeline leaves it."""
        text = self.text
        for old, new in changes:
            assert old in text, f"{old!r} is not in {text}"
            text = text.replace(old, new)
        model = typed(text, "qw", "qb", "kw", "kb", "vw", "vb", "z", "c", seed=seed)
        for node in list(model.graph):
            if node.op_type == "Identity" and node.inputs[0] is not None:
                node.outputs[0].replace_all_uses_with(node.inputs[0])
                model.graph.remove(node, safe=True)
        return model


def sizes(queries: st.SearchStrategy[int], keys: st.SearchStrategy[int]) -> st.SearchStrategy[ProjectedAttention]:
    """Attentions of so many queries and keys, with everything else drawn."""
    some = st.frozensets(st.sampled_from("qkv"))
    return st.builds(
        ProjectedAttention,
        batch=st.integers(1, 3),
        heads=st.integers(1, 3),
        queries=queries,
        keys=keys,
        channels=st.integers(1, 5),
        value_channels=st.integers(1, 5),
        width=st.integers(1, 8),
        value_width=st.integers(1, 8),
        out=st.integers(1, 8),
        mask=st.sampled_from(["", "", "", *MASKS]),
        single=some,
        bare=some,
        scale=st.sampled_from(["", "<scale = 0.3>"]),
    )


def shapes_are_known(model: ir.Model) -> bool:
    """Whether every value has a type and a static shape."""
    values = [value for node in model.graph for value in node.outputs]
    return all(value.type is not None and static_shape(value) is not None for value in values)


def assert_law(pass_: GraphPass, model: ir.Model, seed: int = 0) -> ir.Model:
    """`assert_exact`, and what is left after `eliminate_dead` is no more work, with every type and shape known."""
    after = assert_exact(pass_, model, seeds=(seed,))
    EliminateDead()(after)
    assert shapes_are_known(after)
    counted = graph_statistics(after)
    assert not counted.uncounted
    assert counted.flops <= graph_statistics(model).flops
    return after
