"""What a recipe says: which model to build, how every branch goes, which programs to make, and how they are verified.

A recipe is written in YAML (see `recipes/`) and read by `load_recipe`, which checks all of it and reports every mistake
with its file and line. The definition here is also where the JSON schema for editors comes from (`schema`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, Field, ValidationError, ValidationInfo

from samonnx.frozen_dict import freeze
from samonnx.recipe_by_keys import OrByKeys
from samonnx.recipe_calls import FACTORY_PATTERN, Calls, CallSpec, Replacements, factory_problems
from samonnx.recipe_memory import MemorySpec, SamuraiSpec, SelectionSpec, XMemMemorySpec
from samonnx.recipe_merge import apply_override, read_with_bases
from samonnx.recipe_problems import Problem, RecipeError
from samonnx.recipe_program_options import (
    DetectionSpec,
    PlainProgram,
    PredictSpec,
    Programs,
    StartSpec,
    TrackSpec,
    XMemTrackSpec,
)
from samonnx.recipe_spec import Spec
from samonnx.recipe_validation import problems_of
from samonnx.recipe_yaml import Located

__all__ = [
    "CallSpec",
    "DetectionSpec",
    "MemorySpec",
    "ModelSpec",
    "PinValue",
    "PlainProgram",
    "PredictSpec",
    "Programs",
    "Recipe",
    "RecipeError",
    "SamuraiSpec",
    "SelectionSpec",
    "StartSpec",
    "Target",
    "TrackSpec",
    "VerifySpec",
    "WeightsSpec",
    "XMemMemorySpec",
    "XMemTrackSpec",
    "load_recipe",
    "schema",
]

PinValue = bool | int | float | str
Target = Literal["onnx", "ort-cpu", "openvino"]

PASS_PATTERN = r"^[A-Za-z_][A-Za-z0-9_.-]*(:[A-Za-z_][A-Za-z0-9_]*)?$"


def _frozen(value: Any) -> Any:
    return freeze(value)


Frozen = AfterValidator(_frozen)


class ModelSpec(Spec):
    """The module to compile."""

    factory: Annotated[str, Field(pattern=FACTORY_PATTERN)] = Field(examples=["samonnx.models.efficientsam3:build"])
    """The callable that builds the model: "module:callable", which returns a torch.nn.Module."""

    args: Annotated[Mapping[str, Any], Frozen] = Field(default={}, validate_default=True)
    """Keyword arguments of the factory: any plain values; a list arrives as a tuple. A mapping with `factory` (and
    `args` of its own) is replaced by what that callable returns; in its `args` a list arrives as a list."""


class WeightsSpec(Spec):
    """The numbers in the model."""

    checkpoint: str | Annotated[Mapping[str, str], Frozen, Field(min_length=1)] | None = None
    """A .pth, .pt or .safetensors file, seen from the current folder; for a model of several parts perhaps one for
    each, by the part's name ({sam: FILE, xmem: FILE}); null: seeded weights (meaningless masks)."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the weights when there is no checkpoint."""

    init: Literal["formula", "own"] = "formula"
    """Without a checkpoint: every weight by samonnx's formula, or as the model's constructor draws it from `seed`."""

    rescale: Annotated[Mapping[str, float], Frozen] = Field(default={}, validate_default=True)
    """Tensor name to factor, applied to seeded weights only; the product is taken in float32."""


class VerifySpec(Spec):
    """How the result is verified."""

    atol: Annotated[float, Field(gt=0)] = 1e-3
    """Largest absolute error allowed against the PyTorch reference."""

    clip: Literal["synthetic"] = "synthetic"
    """The clip on which equivalence is checked."""

    frames: Annotated[int, Field(ge=1)] = 8
    """Frames of the clip."""


def _at_least_one_program(programs: Programs, info: ValidationInfo) -> Programs:
    calls: Mapping[str, CallSpec] | None = info.data.get("calls")  # absent when it has problems of its own
    if not programs and calls is not None and not calls:
        raise ValueError("at least one program is needed, such as `track: {}`")
    for name in calls or {}:
        if name in programs:
            raise ValueError(f"`{name}` stands under `calls` too; give the call another name")
    if "segment_prompt" in programs and "predict" not in programs:
        raise ValueError("`segment_prompt` needs `predict` beside it, whose objects and points it takes")
    if "step" in programs and "track" not in programs:
        raise ValueError("`step` needs `track` beside it, whose objects and points it takes")
    for name in ("start", "consolidate", "track_and_consolidate"):
        if name in programs and "track" not in programs:
            raise ValueError(f"`{name}` needs `track` beside it, whose objects, height and width it takes")
    return programs


def _fewer_filled_than_slots(programs: Programs, info: ValidationInfo) -> Programs:
    memory: MemorySpec | None = info.data.get("memory")  # absent when it has problems of its own
    filled = programs["track"].filled if "track" in programs and isinstance(programs["track"], TrackSpec) else None
    if isinstance(memory, MemorySpec) and filled and filled[-1] >= memory.slots:
        raise ValueError(
            f"`track.filled` has {filled[-1]}, expected numbers below {memory.slots}, the slots of the bank "
            "(memory.conditioning_slots + memory.recent_slots), for which there is `track` itself; lower it, or leave "
            "it out"
        )
    return programs


def _of_one_family(programs: Programs, info: ValidationInfo) -> Programs:
    """Memory and programs are both of the SAM family, or both XMem's."""
    memory: Spec | None = info.data.get("memory")  # absent when it has problems of its own
    track: Spec | None = programs.get("track")
    if memory is None or track is None:
        return programs
    if isinstance(track, XMemTrackSpec):
        if not isinstance(memory, XMemMemorySpec):
            raise ValueError(
                "`track` has `height` and `width`, which are XMem's, and so needs XMem's memory: "
                f"`memory: {{{', '.join(XMemMemorySpec.model_fields)}}}`"
            )
        elements = memory.long_term + memory.working_frames * track.cells
        if memory.top_k > elements:
            raise ValueError(
                f"`memory.top_k` is {memory.top_k}, and the memory holds {elements} elements at most (long_term "
                f"{memory.long_term} + working_frames {memory.working_frames} times the {track.cells} cells of a frame "
                f"of {track.height} x {track.width}); lower it"
            )
    elif isinstance(memory, XMemMemorySpec):
        raise ValueError(
            "`track` lacks the size of a frame, which XMem's programs need, such as "
            "`track: {objects: 1, height: 480, width: 854}`"
        )
    return programs


def _no_target_twice(targets: tuple[Target, ...]) -> tuple[Target, ...]:
    if len(set(targets)) < len(targets):
        raise ValueError("a target occurs twice")
    return targets


class Recipe(Spec):
    """A whole recipe, immutable and hashable."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$")] = Field(examples=["efficientsam3_m0_9"])
    """Name of the output folder (dist/NAME): letters, digits, `_`, `.`, `+` and `-`."""

    model: ModelSpec
    weights: WeightsSpec = WeightsSpec()

    pins: Annotated[Mapping[str, PinValue], Frozen] = Field(default={}, validate_default=True)
    """Every dynamic branch of the forward path: glob over attribute paths to value."""

    memory: Annotated[MemorySpec, OrByKeys(XMemMemorySpec)] = MemorySpec()

    detection: DetectionSpec = DetectionSpec()

    replace: Annotated[Replacements, Frozen] = Field(default={}, validate_default=True)
    """Submodules that are traced in another form: glob over their paths to "module:callable", which is called with the
    submodule and returns one that computes the same. Numbers are compared with the original."""

    calls: Annotated[Calls, Frozen] = Field(default={}, validate_default=True)
    """Programs that are one call of a model that is not samonnx's own, by name."""

    programs: Annotated[
        Programs,
        AfterValidator(_at_least_one_program),
        AfterValidator(_fewer_filled_than_slots),
        AfterValidator(_of_one_family),
        Frozen,
    ]
    """Programs of samonnx's own models, by name; may be left out where there are `calls`."""

    passes: tuple[Annotated[str, Field(pattern=PASS_PATTERN)], ...] = Field(
        default=(), examples=[["my_package.passes:MyPass"]]
    )
    """Further passes, run on every program after the general passes and before it is lowered, in this order: names of
    samonnx's own or of entry points (`samonnx compile --list-passes`), or "package.module:ClassName"."""

    targets: Annotated[tuple[Target, ...], Field(min_length=1), AfterValidator(_no_target_twice)] = Field(
        default=("onnx", "ort-cpu"), json_schema_extra={"uniqueItems": True}
    )
    """What the graphs are lowered for: onnx (standard domain only), ort-cpu (ONNX Runtime on CPUs), openvino (OpenVINO
    on CPUs; standard domain only)."""

    verify: VerifySpec = VerifySpec()

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the recipe's canonical JSON: same content, same digest, however it is spread over files."""
        content = self.model_dump(mode="json")
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
        return hashlib.sha256(text.encode("ascii")).hexdigest()

    def to_json(self) -> str:
        """All of it as a file that `load_recipe` reads back to an equal recipe."""
        content = self.model_dump(mode="json")
        return json.dumps(content, sort_keys=True, indent=2, ensure_ascii=True, allow_nan=False) + "\n"


# Keys of these mappings hold dots, so a `--set` path ends in them: --set pins.tracker.multimask_max_points=1
_DOTTED_KEYS = (("pins",), ("weights", "rescale"), ("replace",))


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file with all that it extends, apply `--set` arguments ("memory.recent_slots=4") and check it.

    Raises `RecipeError`, which shows every problem found with file and line, what was found and what is allowed.
    """
    tree = read_with_bases(Path(path))
    problems: list[Problem] = []
    for argument in overrides:
        try:
            tree = apply_override(tree, argument, _DOTTED_KEYS)
        except RecipeError as error:
            problems += error.problems
    if problems:
        raise RecipeError(problems)
    return _validated(tree)


def _validated(tree: Located) -> Recipe:
    plain = cast(dict[str, Any], tree.plain())
    if "calls" in plain:
        plain.setdefault("programs", {})
    try:
        # Strict JSON mode: lists may become tuples and 1 a float, nothing else is converted.
        recipe = Recipe.model_validate_json(json.dumps(plain))
    except ValidationError as error:
        problems = problems_of(error, tree, Recipe.model_json_schema()) + factory_problems(tree)
        raise RecipeError(problems) from None
    if problems := factory_problems(tree):
        raise RecipeError(problems)
    return recipe


def schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of recipe files, for editors; generated from the definition above.

    Nothing is required in it, since a file may leave to the file that it extends what it does not change.
    """
    generated = cast(dict[str, Any], _without_required(Recipe.model_json_schema()))
    extends = {
        "type": "string",
        "description": "A recipe file, relative to this one, whose content is taken where this one says nothing else.",
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **generated,
        "title": "samonnx recipe",
        "properties": {"extends": extends, **generated["properties"]},
    }


def _without_required(node: Any) -> Any:
    if isinstance(node, dict):
        return {
            key: _without_required(value)
            for key, value in node.items()
            if not (key == "required" and isinstance(value, list))
        }
    return [_without_required(item) for item in node] if isinstance(node, list) else node
