from __future__ import annotations

from pathlib import Path

import pytest
import torch

from samonnx.build_model import build_model
from samonnx.checkpoint import CheckpointError
from samonnx.checkpoint_files import checkpoint_argument
from samonnx.models import sam, xmem
from samonnx.recipe import Recipe, load_recipe
from samonnx.weights import WeightsError

TINY = Path(__file__).parents[1] / "recipes" / "sam_xmem_tiny.yaml"
WIDTHS = ("key_dim", "value_dim", "hidden_dim", "trunk_dim", "key_blocks", "value_blocks")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two checkpoints as they are released: each with the keys of its own model."""
    folder = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(3)
    args = load_recipe(TINY).model.args
    made = {"sam": sam.build(**args["sam"]), "xmem": xmem.build(**args["xmem"])}
    paths = {name: folder / f"{name}.pth" for name in made}
    for name, module in made.items():
        torch.save(module.state_dict(), paths[name])
    return paths


def recipe(*overrides: str) -> Recipe:
    return load_recipe(TINY, overrides)


def test_each_part_gets_the_tensors_of_its_file(files: dict[str, Path]) -> None:
    built = build_model(recipe(), files)
    assert (built.weights.source, built.weights.file) == ("checkpoint", "sam.pth, xmem.pth")
    state = built.module.state_dict()
    for part, path in files.items():
        for name, tensor in torch.load(path, weights_only=True).items():  # noqa: TID251  # written above
            assert torch.equal(state[f"{part}.{name}"], tensor)
    assert [component.name for component in built.weights.components][:2] == [
        "sam: image encoder",
        "sam: image encoder: neck",
    ]


def test_one_file_may_hold_both_and_is_the_same_model(files: dict[str, Path], tmp_path: Path) -> None:
    two = build_model(recipe(), files)
    torch.save(two.module.state_dict(), tmp_path / "both.pth")
    one = build_model(recipe(), tmp_path / "both.pth")
    assert one.weights.digest == two.weights.digest
    assert one.weights.file == "both.pth"


def test_the_recipe_may_name_the_files(files: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "named.yaml"
    path.write_text(
        f"name: named\nextends: {TINY}\nweights: {{checkpoint: {{sam: {files['sam']}, xmem: {files['xmem']}}}}}\n"
    )
    assert build_model(load_recipe(path)).weights.digest == build_model(recipe(), files).weights.digest


def test_xmems_widths_are_read_off_its_checkpoint_and_a_single_object_one_is_widened(
    files: dict[str, Path], tmp_path: Path
) -> None:
    tensors = torch.load(files["xmem"], weights_only=True)  # noqa: TID251  # written above
    tensors["value_encoder.conv1.weight"] = tensors["value_encoder.conv1.weight"][:, :4]
    torch.save(tensors, tmp_path / "single.pth")
    plain = recipe().model_copy(
        update={"model": recipe().model.model_copy(update={"args": {"sam": recipe().model.args["sam"]}})}
    )
    built = build_model(plain, {"sam": files["sam"], "xmem": tmp_path / "single.pth"})
    state = built.module.state_dict()
    assert torch.equal(
        state["xmem.value_encoder.conv1.weight"][:, :4], torch.as_tensor(tensors["value_encoder.conv1.weight"])
    )
    assert not state["xmem.value_encoder.conv1.weight"][:, 4].any()


def test_a_width_that_the_recipe_says_and_the_checkpoint_has_not_is_told(files: dict[str, Path]) -> None:
    with pytest.raises(WeightsError, match=r"mis-shaped  xmem\.key_proj"):
        build_model(recipe("model.args.xmem.key_dim=8"), files)


def test_a_part_without_a_file_and_a_file_without_a_part_are_errors(files: dict[str, Path]) -> None:
    message = "there is a checkpoint for sam, but none for xmem: give --checkpoint xmem=FILE too"
    with pytest.raises(CheckpointError, match=message):
        build_model(recipe(), {"sam": files["sam"]})
    with pytest.raises(CheckpointError, match="SamXMem has no part 'same'; it has: sam, xmem"):
        build_model(recipe(), {"same": files["sam"], "xmem": files["xmem"]})
    with pytest.raises(CheckpointError, match=r"nowhere\.pth does not exist"):
        build_model(recipe(), {**files, "sam": Path("nowhere.pth")})


def test_swapped_files_are_told_by_their_keys(files: dict[str, Path]) -> None:
    with pytest.raises((WeightsError, Exception), match=r"XMem checkpoint|missing     sam\.image_encoder"):
        build_model(recipe(), {"sam": files["xmem"], "xmem": files["sam"]})


def test_the_command_line_takes_one_path_or_one_for_each_part() -> None:
    assert checkpoint_argument([]) is None
    assert checkpoint_argument(["some dir/a.pth"]) == Path("some dir/a.pth")
    assert checkpoint_argument(["sam=a.pth", "xmem=b=c.pth"]) == {"sam": Path("a.pth"), "xmem": Path("b=c.pth")}
    assert checkpoint_argument(["./a=b.pth"]) == Path("a=b.pth")
    with pytest.raises(CheckpointError, match=r"given 2 times, and 'b\.pth' does not say which part"):
        checkpoint_argument(["sam=a.pth", "b.pth"])
    with pytest.raises(CheckpointError, match=r"--checkpoint sam=… is given twice"):
        checkpoint_argument(["sam=a.pth", "sam=b.pth"])
