"""What a recipe says of a foreign model: its calls, their ports, nested factories, and submodules to replace.

calls:
  text_features:                        # the name of the program
    method: get_text_features           # from the model; `forward` where nothing is said
    inputs: {input_ids: {shape: [1, 16], dtype: int64, low: 0, high: 99}}
    fixed: {return_dict: true}          # forward arguments that are no inputs
    outputs: {features: pooler_output}  # name → where it lies in what the call returns
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field

from samonnx.frozen_dict import freeze
from samonnx.recipe_problems import Problem, show
from samonnx.recipe_spec import Spec
from samonnx.recipe_yaml import Located

__all__ = [
    "FACTORY_PATTERN",
    "RETURNED",
    "BankSpec",
    "CallSpec",
    "Calls",
    "InputSpec",
    "Replacements",
    "factory_problems",
    "path_steps",
]

AnyTensorSpec = TypeVar("AnyTensorSpec", bound="TensorSpec")

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
FACTORY_PATTERN = rf"^{_NAME}(\.{_NAME})*:{_NAME}(\.{_NAME})*$"
""" "module:callable"; the callable may lie in a class (`transformers:SamModel.from_pretrained`)."""

RETURNED = "."
"""The path of what a call returns, as a whole."""

_PATH = re.compile(rf"(?:{_NAME}|\[\d+\])(?:\.{_NAME}|\[\d+\])*")
_STEP = re.compile(rf"({_NAME})|\[(\d+)\]")
_WIRES = ("bank", "next_bank")
_HIGHEST = {"int32": 2**31 - 1, "int64": 2**63 - 1}


def path_steps(path: str) -> tuple[str | int, ...]:
    """`features.maps[0]` → ("features", "maps", 0); `.` → ()."""
    if path == RETURNED:
        return ()
    return tuple(name if name else int(place) for name, place in _STEP.findall(path))


def _port_name(name: str) -> str:
    if not re.fullmatch(_NAME, name):
        raise ValueError(f"`{name}` cannot be the name of a port; expected letters, digits and `_`, as pixel_values")
    return name


def _call_name(name: str) -> str:
    if not re.fullmatch(_NAME, name) or name in _WIRES:
        raise ValueError(
            f"`{name}` cannot be the name of a program, expected letters, digits and `_`, such as image_features "
            "(`bank` and `next_bank` are taken)"
        )
    return name


def _argument_path(path: str) -> str:
    if not _PATH.fullmatch(path) or path.startswith("["):
        raise ValueError(
            "expected an argument of the method, or a place in one that is a list or a mapping, such as pixel_values, "
            "features[0] or batch.mask"
        )
    return path


def _output_path(path: str) -> str:
    if path != RETURNED and not _PATH.fullmatch(path):
        raise ValueError(
            "expected a place in what the method returns, such as pred_masks, [0], hidden_states[2] or features.last; "
            "`.` is all of it"
        )
    return path


def _frozen(value: Any) -> Any:
    return freeze(value)


Frozen = AfterValidator(_frozen)
PortName = Annotated[str, AfterValidator(_port_name)]
ArgumentPath = Annotated[str, AfterValidator(_argument_path)]
OutputPath = Annotated[str, AfterValidator(_output_path)]
Shape = tuple[Annotated[int, Field(ge=1)], ...]
Dtype = Literal["float32", "int32", "int64", "bool"]


class TensorSpec(Spec):
    """A tensor that goes into a call, and the values that it is tried with: floats in low…high (normal where neither
    is given), whole numbers from low to high, both included (0 and 1 where nothing is given), flags at random."""

    shape: Shape
    """Sides of the tensor; [] is a scalar."""

    dtype: Dtype = "float32"
    """Kind of its elements."""

    low: float | None = None
    """Smallest value to try."""

    high: float | None = None
    """Largest value to try."""

    argument: ArgumentPath | None = None
    """The argument it becomes, or a place in one (`features[0]`, `batch.mask`); null: the one of its own name."""

    meaning: str = ""
    """For the manifest."""

    @property
    def bounds(self) -> tuple[float, float]:
        """`low` and `high`, where one is missing 0 or 1, or what keeps the order."""
        low = 0.0 if self.low is None else self.low
        high = 1.0 if self.high is None else self.high
        if self.high is None and self.low is not None:
            high = max(1.0, self.low)
        if self.low is None and self.high is not None:
            low = min(0.0, self.high)
        return low, high


class InputSpec(TensorSpec):
    """An input of the program."""


class BankSpec(TensorSpec):
    """A tensor that the caller carries from call to call: in as `bank.NAME`, out as `next_bank.NAME`."""

    output: OutputPath
    """Where its next value lies in what the method returns."""

    empty: bool | int | float
    """What an empty bank is filled with."""


def _drawn_between(spec: AnyTensorSpec) -> AnyTensorSpec:
    if spec.dtype == "bool" and (spec.low is not None or spec.high is not None):
        raise ValueError("`low` and `high` bound numbers, and this is a bool; leave them out")
    if spec.dtype.startswith("int"):
        for name, value in (("low", spec.low), ("high", spec.high)):
            if value is not None and (value != int(value) or abs(value) > _HIGHEST[spec.dtype]):
                raise ValueError(f"`{name}` is {value:g}, expected a whole number of {spec.dtype}")
    low, high = spec.bounds
    if low > high:
        raise ValueError(f"`low` is {low:g} and `high` is {high:g}, expected the smaller number first")
    return spec


def _filled_bank(spec: BankSpec) -> BankSpec:
    kind = type(spec.empty)
    if (kind is bool) != (spec.dtype == "bool") or (kind is float and spec.dtype.startswith("int")):
        raise ValueError(f"`empty` is {show(spec.empty)}, expected a value of {spec.dtype}")
    return _drawn_between(spec)


def _no_port_twice(call: CallSpec) -> CallSpec:
    for name in call.outputs:
        if name in call.inputs:
            raise ValueError(f"`{name}` is an input and an output; give the output a name of its own")
    return call


def _no_argument_twice(call: CallSpec) -> CallSpec:
    given = {f"inputs.{name}": spec.argument or name for name, spec in call.inputs.items()}
    given |= {f"bank.{name}": spec.argument or name for name, spec in call.bank.items()}
    given |= {f"fixed.{name}": name for name in call.fixed}
    said = list(given.items())
    for place, (first, one) in enumerate(said):
        for second, other in said[place + 1 :]:
            shorter, longer = sorted((path_steps(one), path_steps(other)), key=len)
            if longer[: len(shorter)] == shorter:
                raise ValueError(f"`{first}` and `{second}` both give the argument `{max(one, other, key=len)}`")
    return call


class CallSpec(Spec):
    """A program that is one call of the model, or of a part of it."""

    method: Annotated[str, Field(pattern=rf"^{_NAME}(\.[A-Za-z0-9_]+)*$")] = Field(
        default="forward", examples=["get_image_features"]
    )
    """What is called, as a path from the model: forward, get_image_features, vision_encoder.forward; a module by its
    own name (vision_encoder) is called as Python calls it, with its hooks."""

    inputs: Annotated[Mapping[PortName, Annotated[InputSpec, AfterValidator(_drawn_between)]], Frozen] = Field(
        default={}, validate_default=True
    )
    """Inputs of the program, in order."""

    fixed: Annotated[Mapping[ArgumentPath, Any], Frozen] = Field(default={}, validate_default=True)
    """Arguments with plain values: multimask_output: true."""

    outputs: Annotated[Mapping[PortName, OutputPath], Frozen] = Field(json_schema_extra={"minProperties": 1})
    """Outputs of the program, in order: name → place in what the method returns."""

    bank: Annotated[Mapping[PortName, Annotated[BankSpec, AfterValidator(_filled_bank)]], Frozen] = Field(
        default={}, validate_default=True
    )
    """What the caller carries from call to call."""


def _no_gap_in_lists(call: CallSpec) -> CallSpec:
    paths = [spec.argument or name for name, spec in (*call.inputs.items(), *call.bank.items())]
    places: dict[tuple[str | int, ...], set[str | int]] = {}
    for steps in map(path_steps, (*paths, *call.fixed)):
        for depth in range(1, len(steps)):
            places.setdefault(steps[:depth], set()).add(steps[depth])
    for above, below in places.items():
        numbers = {step for step in below if isinstance(step, int)}
        if numbers and (numbers != below or numbers != set(range(len(numbers)))):
            said = ", ".join(map(str, sorted(map(str, below))))
            raise ValueError(
                f"of the argument `{above[0]}` the places {said} are given; expected a list's places from 0 on, "
                "without a gap, or names alone"
            )
    return call


def _sound_call(call: CallSpec) -> CallSpec:
    if not call.outputs:
        raise ValueError("`outputs` is empty, expected at least one, such as `outputs: {masks: pred_masks}`")
    if not call.inputs and not call.bank:
        raise ValueError("there are no `inputs`, expected at least one, such as `inputs: {x: {shape: [1, 3]}}`")
    return _no_gap_in_lists(_no_argument_twice(_no_port_twice(call)))


Calls = Mapping[Annotated[str, AfterValidator(_call_name)], Annotated[CallSpec, AfterValidator(_sound_call)]]
"""Program name → call."""

Replacements = Mapping[str, Annotated[str, Field(pattern=FACTORY_PATTERN, description='of the form "module:callable"')]]
"""Glob over paths of submodules → "module:callable", which takes the old submodule and returns the new one."""


def factory_problems(tree: Located) -> list[Problem]:
    """What is wrong with mappings in `model.args` that say `factory:`, each with its line."""
    model = (tree.entries or {}).get("model")
    args = ((model.value.entries or {}) if model else {}).get("args")
    return list(_nested(args.value, "model.args")) if args else []


def _nested(node: Located, path: str) -> Iterator[Problem]:
    entries = node.entries
    if entries is None:
        for place, item in enumerate(node.content if isinstance(node.content, tuple) else ()):
            yield from _nested(item, f"{path}[{place}]")
        return
    if "factory" in entries:
        factory = entries["factory"]
        name = factory.value.content
        if not isinstance(name, str) or not re.fullmatch(FACTORY_PATTERN, name):
            yield Problem(
                factory.value.origin,
                f'{path}.factory: found {show(factory.value.plain())}, allowed: a string "module:callable", such as '
                "transformers:SamConfig",
            )
        for key, entry in entries.items():
            if key not in ("factory", "args"):
                yield Problem(
                    entry.key_origin,
                    f"unknown key `{key}` in `{path}`; a mapping with `factory` is what that callable returns, and "
                    "allowed beside it: args",
                )
        arguments = entries.get("args")
        if arguments is not None and arguments.value.entries is None:
            yield Problem(
                arguments.value.origin,
                f"{path}.args: found {show(arguments.value.plain())}, allowed: a mapping of argument names to values",
            )
    for key, entry in entries.items():
        yield from _nested(entry.value, f"{path}.{key}")
