from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from samonnx.recipe import Recipe, RecipeError, load_recipe, schema
from samonnx.recipe_merge import merge
from samonnx.recipe_yaml import parse_yaml
from samonnx.schema import schema_text

ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))

SMALL = """\
name: small
model:
  factory: package.module:build
  args: {width: 8}
programs: {track: {}}
"""


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


# The recipes of this repository


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_loads_and_is_named_as_its_file(path: Path) -> None:
    assert load_recipe(path).name == path.stem


def test_there_is_a_recipe_for_each_size_and_a_tiny_one() -> None:
    names = {path.stem for path in RECIPES}
    assert names >= {"efficientsam3_m0_9", "efficientsam3_m1_1", "efficientsam3_m2_3", "efficientsam3_tiny"}


def test_the_full_recipe_says_what_the_reference_tensors_were_made_with() -> None:
    recipe = load_recipe(ROOT / "recipes/efficientsam3_m0_9.yaml")
    assert recipe.model.factory == "samonnx.models.efficientsam3:build"
    assert recipe.model.args == {
        "backbone": "repvit_m0_9",
        "text_encoder": "mobileclip_s1",
        "context_length": 32,
        "image_size": 1008,
    }
    assert recipe.weights.checkpoint is None
    assert recipe.weights.rescale == {"detector.backbone.vision_backbone.trunk.model.head.1.running_var": 2.0**30}
    assert recipe.memory.model_dump(exclude_defaults=True) == {}
    assert recipe.memory.model_dump(exclude={"selection", "samurai"}) == {
        "conditioning_slots": 1,
        "recent_slots": 6,
        "pointer_slots": 16,
        "policy": "recent",
    }
    assert recipe.programs["track"].model_dump() == {
        "points": 4,
        "mask_prompt": True,
        "objects": 1,
        "filled": None,
    }
    assert list(recipe.programs) == ["encode_text", "encode_image", "ground", "segment", "track", "step"]
    assert recipe.detection.model_dump() == {"boxes": 4, "points": 4, "masks": 0}
    assert recipe.targets == ("onnx", "ort-cpu")
    assert recipe.verify.model_dump() == {"atol": 1e-4, "clip": "synthetic", "frames": 2}


def test_the_tiny_recipe_differs_from_the_full_one_in_sizes_only() -> None:
    tiny, full = (load_recipe(ROOT / f"recipes/efficientsam3_{size}.yaml") for size in ("tiny", "m0_9"))
    assert (tiny.pins, tiny.memory, tiny.programs) == (full.pins, full.memory, full.programs)
    assert tiny.model.args["image_size"] == 112


# Defaults and types


def test_what_a_recipe_leaves_out_has_defaults(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, "small.yaml", SMALL))
    assert (recipe.memory.conditioning_slots, recipe.memory.recent_slots, recipe.memory.pointer_slots) == (1, 6, 16)
    assert (recipe.weights.seed, recipe.weights.checkpoint, recipe.weights.rescale) == (0, None, {})
    assert recipe.targets == ("onnx", "ort-cpu")
    assert recipe.pins == {}


def test_pins_keep_the_type_that_the_file_gives_them(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, "a.yaml", SMALL + "pins: {a: true, b: 1, c: 1.0, d: yes, e: 1e-3}\n"))
    assert [(type(value), value) for value in recipe.pins.values()] == [
        (bool, True),
        (int, 1),
        (float, 1.0),
        (str, "yes"),
        (float, 1e-3),
    ]


def test_a_recipe_cannot_be_changed(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, "a.yaml", SMALL + "pins: {a: true}\n"))
    with pytest.raises(ValidationError, match="frozen"):
        recipe.memory.recent_slots = 3  # type: ignore[misc]  # the point of the test
    mappings: list[Any] = [recipe.pins, recipe.model.args, recipe.weights.rescale, recipe.programs]
    for mapping in mappings:
        with pytest.raises(TypeError, match="immutable"):
            mapping["a"] = False
        with pytest.raises(TypeError, match="immutable"):
            mapping |= {"a": False}
        with pytest.raises(TypeError, match="immutable"):
            mapping.update(a=False)


def test_a_recipe_is_a_value_that_hashes_copies_and_pickles(tmp_path: Path) -> None:
    path = write(tmp_path, "a.yaml", SMALL.replace("{width: 8}", "{widths: [8, {deep: [16]}]}"))
    recipe = load_recipe(path)
    assert recipe.model.args["widths"] == (8, {"deep": (16,)})
    assert hash(recipe) == hash(load_recipe(path))
    assert pickle.loads(pickle.dumps(recipe)) == recipe
    assert copy.deepcopy(recipe) == recipe
    assert recipe.model_dump(mode="json")["model"]["args"] == {"widths": [8, {"deep": [16]}]}


# extends


def test_extends_merges_mappings_and_replaces_lists(tmp_path: Path) -> None:
    write(tmp_path, "shared/base.yaml", SMALL + "memory: {recent_slots: 2, pointer_slots: 8}\ntargets: [onnx]\n")
    child = "extends: shared/base.yaml\nname: child\nmemory: {recent_slots: 3}\ntargets: [ort-cpu]\n"
    child += "model: {args: {depth: 2}}\n"
    recipe = load_recipe(write(tmp_path, "child.yaml", child))
    assert recipe.name == "child"
    assert (recipe.memory.recent_slots, recipe.memory.pointer_slots) == (3, 8)
    assert recipe.targets == ("ort-cpu",)
    assert recipe.model.args == {"width": 8, "depth": 2}
    assert recipe.model.factory == "package.module:build"


def test_a_base_may_extend_another_and_paths_are_relative_to_each_file(tmp_path: Path) -> None:
    write(tmp_path, "root.yaml", SMALL + "verify: {frames: 5}\n")
    write(tmp_path, "families/middle.yaml", "extends: ../root.yaml\nname: middle\nverify: {atol: 0.5}\n")
    recipe = load_recipe(write(tmp_path, "leaf.yaml", "extends: families/middle.yaml\nname: leaf\n"))
    assert (recipe.name, recipe.verify.frames, recipe.verify.atol) == ("leaf", 5, 0.5)


# --set


@pytest.mark.parametrize(
    ("argument", "path", "value"),
    [
        ("memory.recent_slots=4", ("memory", "recent_slots"), 4),
        ("weights.checkpoint=model.pth", ("weights", "checkpoint"), "model.pth"),
        ("weights.checkpoint=a=b.pth", ("weights", "checkpoint"), "a=b.pth"),
        ("weights.checkpoint=", ("weights", "checkpoint"), None),
        ("targets=[ort-cpu]", ("targets",), ["ort-cpu"]),
        ("verify.atol=1e-4", ("verify", "atol"), 1e-4),
        ("programs.track.mask_prompt=false", ("programs", "track", "mask_prompt"), False),
        ("model.args.neck.levels=[1, 2]", ("model", "args", "neck", "levels"), [1, 2]),
        ("pins.tracker.multimask_max_points=1", ("pins", "tracker.multimask_max_points"), 1),
        ("pins.layers.*.pre_norm=true", ("pins", "layers.*.pre_norm"), True),
        ("weights.rescale.trunk.head.1.running_var=2", ("weights", "rescale", "trunk.head.1.running_var"), 2.0),
    ],
)
def test_set_puts_a_value_where_its_path_says(tmp_path: Path, argument: str, path: tuple[str, ...], value: Any) -> None:
    found: Any = load_recipe(write(tmp_path, "a.yaml", SMALL), [argument]).model_dump(mode="json")
    for key in path:
        found = found[key]
    assert found == value
    assert type(found) is type(value)


def test_set_replaces_a_mapping_that_it_names_whole_and_the_last_one_wins(tmp_path: Path) -> None:
    path = write(tmp_path, "a.yaml", SMALL + "memory: {recent_slots: 2, pointer_slots: 8}\n")
    recipe = load_recipe(path, ["memory={recent_slots: 3}", "memory.recent_slots=4", "verify.frames=1"])
    assert (recipe.memory.recent_slots, recipe.memory.pointer_slots, recipe.verify.frames) == (4, 16, 1)


# Digest


def test_a_digest_is_a_sha256_that_follows_every_value(tmp_path: Path) -> None:
    path = write(tmp_path, "a.yaml", SMALL)
    changes = [
        "name=b",
        "model.args.width=9",
        "pins.a=1",
        "pins.a=1.5",
        "pins.a=true",
        "weights.seed=1",
        "targets=[onnx]",
    ]
    digests = [load_recipe(path).digest, *(load_recipe(path, [change]).digest for change in changes)]
    assert len(set(digests)) == len(digests)
    assert all(len(digest) == 64 and int(digest, 16) >= 0 for digest in digests)


def test_a_digest_does_not_see_order_layout_or_written_defaults(tmp_path: Path) -> None:
    other = "# a comment\nprograms:\n  track:\n    points: 4\nname: small\n"
    other += "model: {args: {width: 0x8}, factory: 'package.module:build'}\n"
    assert load_recipe(write(tmp_path, "a.yaml", SMALL)).digest == load_recipe(write(tmp_path, "b.yaml", other)).digest


Tree = dict[str, Any]
names = st.sampled_from(["a", "b", "c", "d"])
trees: st.SearchStrategy[Tree] = st.recursive(
    st.dictionaries(names, st.integers() | st.booleans() | st.lists(st.integers(), max_size=2), max_size=4),
    lambda inner: st.dictionaries(names, inner | st.integers(), max_size=4),
    max_leaves=12,
)


def merged(base: Tree, over: Tree) -> Any:
    return merge(parse_yaml(json.dumps(base), "base"), parse_yaml(json.dumps(over), "over")).plain()


@given(trees, trees, trees)
def test_merging_is_associative_and_idempotent_and_keeps_all_of_the_upper_tree(a: Tree, b: Tree, c: Tree) -> None:
    assert merged(a, a) == a
    assert merged({}, a) == merged(a, {}) == a

    def within(part: Any, whole: Any) -> bool:
        if isinstance(part, dict):
            return isinstance(whole, dict) and all(key in whole and within(part[key], whole[key]) for key in part)
        return bool(part == whole)

    assert within(b, merged(a, b))
    assert set(merged(a, b)) == set(a) | set(b)
    if _same_kinds(a, b) and _same_kinds(b, c) and _same_kinds(a, c):
        assert merged(merged(a, b), c) == merged(a, merged(b, c))


def _same_kinds(a: Any, b: Any) -> bool:
    """Whether no key holds a mapping in one tree and something else in the other."""
    if isinstance(a, dict) != isinstance(b, dict):
        return False
    return not isinstance(a, dict) or all(_same_kinds(a[key], b[key]) for key in set(a) & set(b))


# Schema


def test_the_schema_for_editors_is_the_one_generated_from_the_definition() -> None:
    committed = (ROOT / "recipes/schema/recipe.schema.json").read_text(encoding="utf-8")
    assert committed == schema_text(), "run: python -m samonnx.schema --output recipes/schema/recipe.schema.json"


def test_the_schema_knows_every_key_and_extends_and_requires_none() -> None:
    generated = schema()
    assert set(generated["properties"]) == {"extends", *Recipe.model_fields}
    assert generated["additionalProperties"] is False

    def keys(node: Any) -> set[str]:
        if isinstance(node, Mapping):
            return set(node).union(*map(keys, node.values()))
        return set().union(*map(keys, node)) if isinstance(node, list) else set()

    assert "required" not in keys(generated)


def test_every_setting_is_described_in_the_schema() -> None:
    definitions = schema()["$defs"].values()
    settings = [item for spec in definitions for item in spec.get("properties", {}).items()]
    assert [name for name, setting in settings if not setting.get("description") and "$ref" not in setting] == []


@pytest.mark.parametrize("path", [*RECIPES, ROOT / "recipes/base/efficientsam3.yaml"], ids=lambda path: path.stem)
def test_recipe_files_point_editors_to_the_schema(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    reference = first.removeprefix("# yaml-language-server: $schema=")
    assert (path.parent / reference).resolve() == ROOT / "recipes/schema/recipe.schema.json"


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_recipe_written_out_reads_back_as_the_same(path: Path, tmp_path: Path) -> None:
    recipe, written = load_recipe(path), tmp_path / "recipe.json"
    written.write_text(recipe.to_json())
    assert load_recipe(written) == recipe
    assert load_recipe(written).digest == recipe.digest


@pytest.mark.parametrize("policy", ["recent", "selection"])
def test_constants_of_another_policy_than_the_recipe_s_are_refused(policy: str) -> None:
    with pytest.raises(RecipeError, match=f"constants of the policy samurai, but the policy is {policy}"):
        load_recipe(ROOT / "recipes/sam2_tiny.yaml", [f"memory.policy={policy}", "memory.samurai.kf_score_weight=0.15"])
