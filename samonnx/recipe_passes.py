"""The passes that a recipe adds to the compiler's own: from their names to passes, and to words for the manifest."""

from __future__ import annotations

from collections.abc import Sequence

from samonnx.errors import SamonnxError
from samonnx.passes.interface import Exactness, GraphPass
from samonnx.passes.registry import pass_by_name

__all__ = ["pass_notes", "passes_by_name"]


def passes_by_name(names: Sequence[str]) -> tuple[GraphPass, ...]:
    """One pass a name (or "package.module:ClassName"), with its default options.

    Raises:
        UnknownPassError: a name that leads to no pass.
        SamonnxError: a pass with an option that has no default.
    """
    passes = []
    for name in names:
        cls = pass_by_name(name)
        try:
            passes.append(cls())
        except TypeError as error:
            raise SamonnxError(
                f"pass {name!r} of the recipe cannot be made without options: {error}; give {cls.__name__} defaults, "
                "or name a subclass that has them"
            ) from error
    return tuple(passes)


def pass_notes(names: Sequence[str]) -> tuple[str, ...]:
    """A sentence for each pass, for the manifest."""
    return tuple(
        f"the recipe's pass {pass_.name} ({type(pass_).__module__}:{type(pass_).__name__}) ran on every program before "
        f"it was lowered; it promises: {_promise(pass_)}"
        for pass_ in passes_by_name(names)
    )


def _promise(pass_: GraphPass) -> str:
    if pass_.exactness is Exactness.BIT_EXACT:
        return str(pass_.exactness.value)
    return f"{pass_.exactness.value}, within {pass_.tolerance:g} of an output's largest magnitude"
