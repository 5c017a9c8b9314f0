"""Which passes run on a foreign graph, and which must not.

    general   fold, recognise, save work by algebra          every target
    lowering  into the dialect of the target                 left out where it does not pay
    tidy      what the lowering leaves

Passes that compose weights or move scales look at float32 and float64 only (in half precision composing is no identity
within 1e-5). Those that write newer operators than the graph imports do nothing there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from samonnx.errors import SamonnxError
from samonnx.optimize_result import Kept, OptimizeError
from samonnx.pass_pipelines import LOWERINGS, component_passes, general_passes, tidy_passes
from samonnx.passes.fuse_rotary import FuseRotary
from samonnx.passes.interface import Exactness, GraphPass
from samonnx.passes.registry import pass_by_name

__all__ = ["NEEDED_OPSETS", "Plan", "make_plan"]

NEEDED_OPSETS = {"fuse_attention": 23, "fuse_rotary": 23, "fuse_nearest_resize": 13, "reassociate_products": 13}
"""Passes that write operators of this version; in older graphs they do nothing."""


@dataclass(frozen=True)
class Plan:
    """Candidates, from the one that does most; each is a list of passes."""

    candidates: tuple[tuple[Kept, tuple[GraphPass, ...]], ...]

    def preceded_by(self, pass_: GraphPass) -> Plan:
        """With `pass_` in front of all candidates but those that are bit-exact anyway."""
        return Plan(
            tuple((kept, passes if kept is Kept.BIT_EXACT else (pass_, *passes)) for kept, passes in self.candidates)
        )

    def bit_exact(self) -> Plan:
        """For a graph that cannot be run."""
        passes = tuple(pass_ for pass_ in self.candidates[0][1] if pass_.exactness is Exactness.BIT_EXACT)
        return Plan(((Kept.BIT_EXACT, passes),))


def make_plan(target: str, names: Sequence[str] | None) -> Plan:
    """The passes for `target`, or those of `names` in that order.

    Raises:
        OptimizeError: an unknown target, or a pass that cannot be made without options.
        UnknownPassError: an unknown pass.
    """
    if target not in LOWERINGS:
        raise OptimizeError(f"unknown target {target!r}; targets: {', '.join(LOWERINGS)}")
    if names is not None:
        passes = tuple(_made(name) for name in names)
        return Plan(((Kept.ALL, passes), (Kept.BIT_EXACT, _bit_exact(passes))))
    general = tuple(_for_foreign_graphs(pass_) for pass_ in (*component_passes(), *general_passes()))
    tidy = tidy_passes()
    return Plan(
        (
            (Kept.ALL, (*general, *LOWERINGS[target], *tidy)),
            (Kept.GENERAL, (*general, *tidy)),
            (Kept.BIT_EXACT, _bit_exact((*general, *tidy))),
        )
    )


def _bit_exact(passes: Sequence[GraphPass]) -> tuple[GraphPass, ...]:
    return tuple(pass_ for pass_ in passes if pass_.exactness is Exactness.BIT_EXACT)


def _for_foreign_graphs(pass_: GraphPass) -> GraphPass:
    """Rotations in half precision round elsewhere in an engine's kernel."""
    return replace(pass_, dtypes=(ir.DataType.FLOAT,)) if isinstance(pass_, FuseRotary) else pass_


def _made(name: str) -> GraphPass:
    kind = pass_by_name(name)
    try:
        return kind()
    except (TypeError, SamonnxError) as error:
        raise OptimizeError(f"pass {name!r} cannot run without options: {error}") from error
