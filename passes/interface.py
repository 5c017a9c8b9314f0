"""What a graph pass is: a value with a name, an exactness class and one method over `onnx_ir.Model`."""

from __future__ import annotations

import enum
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from samonnx.errors import SamonnxError

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs

__all__ = ["Array", "Exactness", "GraphPass", "PassDeclinedError", "PassResult"]

Array = np.ndarray[Any, np.dtype[Any]]


class Exactness(enum.Enum):
    """How close a rewritten graph stays to the graph it came from."""

    BIT_EXACT = "bit-exact"
    """Every output keeps its bits."""
    REAL_EXACT = "exact in real arithmetic"
    """An identity of real numbers; float rounding moves outputs by no more than `tolerance`."""
    APPROXIMATE = "approximate"
    """Not an identity; opt-in only, outputs move by no more than `tolerance`."""


class PassDeclinedError(SamonnxError):
    """A pass was asked for something that the graph does not allow; says which value or node and why."""


@dataclass(frozen=True)
class GraphPass(InPlacePass):
    """Base of all passes: ONNX graph in, the same `ir.Model` object out, rewritten.

    A subclass is a frozen dataclass whose fields are its options. It sets three class variables and writes
    `call(model) -> PassResult(model, modified)`, with an honest `modified`. Nothing learnt from one graph is kept on
    `self`. Its docstring is the contract: the first line is the summary shown by `--list-passes`, then a drawing
    `before → after`, then the paragraphs `Exact:`, `Declines:` and `Cost:`.

    A pass keeps the names and the order of graph inputs and outputs, unless changing them is its purpose; such a
    pass also overrides `feeds_before`.

    Class variables:
        name: the file's stem (`fold_constants`; `lower_onnx` for `lower/onnx.py`); also the key in the registry.
        exactness: the class of the promise.
        tolerance: largest absolute difference of an output, relative to the output's largest magnitude; 0.0 for
            `BIT_EXACT`, positive otherwise.
    """

    name: ClassVar[str]
    exactness: ClassVar[Exactness]
    tolerance: ClassVar[float]

    @abstractmethod
    def call(self, model: ir.Model) -> PassResult:
        """Rewrites `model` in place; raises a `SamonnxError` for what the user can mend."""

    def feeds_before(self, feeds_after: Mapping[str, Array], before: ir.Model) -> dict[str, Array]:
        """Inputs of the graph before this pass that mean the same as `feeds_after` to the graph after it.

        Used to verify passes that change the graph's inputs. The default is for passes that do not.
        """
        del before
        return dict(feeds_after)

    def apply_gs(self, graph: gs.Graph) -> gs.Graph:
        """The pass for users of onnx-graphsurgeon: a new graph, rewritten; `graph` stays as it is.

        Raises:
            SamonnxError: what `call` raises.
        """
        from samonnx.passes.graphsurgeon import applied  # onnx-graphsurgeon is imported only if it is used

        return applied(self, graph)

    def __str__(self) -> str:
        return self.name
