"""What the documents say is so: their code runs, their commands parse, their paths exist, their tables are complete."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from samonnx.cli import SUBCOMMANDS
from samonnx.exit_codes import ExitCode
from samonnx.passes import PASSES
from samonnx.programs.policy import memory_policy
from samonnx.programs.track_ports import track_ports
from samonnx.recipe import load_recipe
from samonnx.runtime.manifest import Manifest, PortInfo
from samonnx.runtime.video_writer import VideoWriter
from tests.documents import ROOT, Row, blocks, commands, fenced, rows, run_guide, section, text_of
from tests.runtime.hand_made_artifact import clip
from tests.tiny_model import tiny_model, tiny_recipe

PAGES = tuple(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md")))
GUIDES = tuple(page for page in PAGES if page.startswith("docs/guides/"))
DOCUMENTS = ("README.md", "CHANGELOG.md", "golden/README.md", *PAGES)
FOLDERS = {"samonnx", "passes", "recipes", "golden", "tests", "docs", "benchmarks", "examples", ".ci"}
DTYPES = {"f32": "float32", "i32": "int32", "i64": "int64", "bool": "bool"}


# Commands


def check_command(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A samonnx command parses, one of the set-up's is one of the known."""
    if words[0].endswith("python") and words[1] == "-m" and words[2].startswith("samonnx."):
        words = ["samonnx", words[2].removeprefix("samonnx."), *words[3:]]
    if words[0] != "samonnx":
        assert words[:3] == ["python3", "-m", "venv"] or words[:2] == [".venv/bin/pip", "install"] or words[0] == "sh"
        return
    assert words[1] in SUBCOMMANDS, words
    module = importlib.import_module(f"samonnx.{words[1]}")
    ran: list[int] = []

    def instead(body: Callable[[], int]) -> int:
        ran.append(1)
        return int(ExitCode.OK)

    monkeypatch.setattr(module, "run_command", instead)
    assert module.main(words[2:]) == ExitCode.OK, words
    assert ran, words


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_in_a_document_parses(document: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for words in commands(document):
        check_command(words, monkeypatch)


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_the_help_of_every_subcommand_shows_examples_that_parse(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")  # argparse would break an example's line
    with suppress(SystemExit):  # argparse's way out; some commands turn it into their exit code
        assert importlib.import_module(f"samonnx.{name}").main(["--help"]) == ExitCode.OK
    epilog = capsys.readouterr().out.partition("\noptions:")[2].replace("\\\n", " ")
    examples = re.findall(rf"(?:(?:^ +|example: )(?:samonnx |python -m samonnx\.)){name} .*", epilog, re.MULTILINE)
    assert examples
    for example in examples:
        check_command(shlex.split(example.strip().removeprefix("example: ")), monkeypatch)


def test_ci_runs_the_second_of_the_two_commands() -> None:
    lines = [line for line in "\n".join(blocks("README.md", "sh")).splitlines() if line.startswith("python3 -m venv")]
    main_job, checks = lines
    assert main_job.endswith("samonnx.compile recipes/efficientsam3_m0_9.yaml")
    script = text_of(".ci/run")
    assert script.splitlines()[-1] == checks
    assert script.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in script
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_is_installed_is_declared(document: str) -> None:
    extras = tomllib.loads(text_of("pyproject.toml"))["project"]["optional-dependencies"]
    for words in commands(document):
        for word in words:
            if match := re.fullmatch(r"\.\[(.*)\]", word):
                assert set(match[1].split(",")) <= set(extras)
            if word.startswith("torch=="):
                assert word in text_of("constraints.txt").splitlines()


# Paths


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_that_a_document_names_exists(document: str) -> None:
    text = text_of(document)
    links = re.findall(r"\]\(([^)#]+)\)", text)
    missing = [link for link in links if "://" not in link and not ((ROOT / document).parent / link).exists()]
    words = [word for code in re.findall(r"`([^`\n]+)`", text) for word in code.split()]
    words += [word for command in commands(document) for word in command]
    named = {word for word in words if word.partition("/")[0] in FOLDERS and "/" in word and "NAME" not in word}
    missing += [word for word in named if not list(ROOT.glob(word.rstrip("/")))]
    assert missing == []


# Code


@pytest.fixture
def place(
    artifacts: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder with the scaled-down artifact under the full one's name, a short video and a photo."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "dist").mkdir()
    (folder / "dist" / "efficientsam3_m0_9").symlink_to(artifacts(), target_is_directory=True)
    with VideoWriter(folder / "clip.mp4", Fraction(24)) as writer:
        for frame in clip(3, 480, 640):
            writer.write(frame)
    Image.fromarray(clip(1, 200, 260)[0]).save(folder / "photo.jpg")
    monkeypatch.chdir(folder)
    return folder


def run_block(marker: str) -> dict[str, Any]:
    """Run README's Python block that contains `marker`; its names afterwards."""
    (code,) = (block for block in blocks("README.md", "python") if marker in block)
    names: dict[str, Any] = {"__name__": "readme"}
    exec(compile(code, "README.md", "exec"), names)
    return names


def test_readmes_segmenter_example_finds_things_in_the_photo(place: Path) -> None:
    names = run_block("Segmenter(")
    dogs = names["dogs"]
    assert (dogs.width, dogs.height) == (260, 200)
    assert dogs.masks.shape == (len(dogs), 200, 260)
    assert dogs.boxes.shape == (len(dogs), 4)
    assert (dogs.scores > 0.5).all()
    assert 0 < dogs.best_score <= 1


def test_readmes_samurai_example_follows_a_box(place: Path, artifacts: Callable[..., Path]) -> None:
    folder = artifacts(programs=("track", "track@first"), recipe=ROOT / "recipes" / "samurai_tiny.yaml")
    (place / "dist" / "samurai_hiera_b+").symlink_to(folder, target_is_directory=True)
    result = run_block("box=(40, 30, 160, 150)")["result"]
    assert result.frame_index == 2
    assert result.boxes.shape == (1, 4)
    assert result.iou.shape == (1,)


def test_readmes_click_example_follows_it_with_xmem(place: Path, artifacts: Callable[..., Path]) -> None:
    folder = artifacts(recipe=ROOT / "recipes" / "sam_xmem_tiny.yaml")
    (place / "dist" / "sam_xmem").symlink_to(folder, target_is_directory=True)
    result = run_block("open_tracker(")["result"]
    assert result.frame_index == 2
    assert result.masks.shape == (1, 480, 640)


def test_readmes_tracker_example_tracks_both_objects_and_restores_the_bank(place: Path) -> None:
    names = run_block("open_frames(")
    assert names["result"].frame_index == 2
    assert names["result"].masks.shape == (2, 480, 640)
    assert names["tracker"].objects == (1, 2)
    assert (place / "bank.npz").is_file()


def test_readmes_bare_example_feeds_the_bank_back(place: Path) -> None:
    names = run_block("InferenceSession")
    assert sorted(names["bank"]["bank.memory_frame"][0]) == [-1, -1, -1, -1, 0, 1, 2]
    assert names["bank"]["bank.memory_conditioning"].sum() == 1
    assert names["mask"].shape == (names["size"], names["size"])
    assert np.isfinite(names["outputs"]["masks"]).all()


def test_all_python_blocks_are_among_those_run() -> None:
    assert len(blocks("README.md", "python")) == 5
    elsewhere = {document for document in DOCUMENTS if blocks(document, "python")} - {"README.md", *GUIDES}
    assert elsewhere == {"docs/index.md"}


def test_the_front_pages_imports_are_there() -> None:
    (code,) = blocks("docs/index.md", "python")
    exec(compile(code, "docs/index.md", "exec"), {})


@pytest.mark.parametrize("guide", GUIDES)
def test_a_guide_runs_from_top_to_bottom_and_prints_what_it_says(
    guide: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    loaded = set(sys.modules)
    try:
        run_guide(guide, tmp_path)
    finally:
        for name in set(sys.modules) - loaded:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
                del sys.modules[name]


def test_a_guide_that_prints_something_else_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    monkeypatch.setattr("tests.documents.ROOT", tmp_path)
    page.write_text("```python\nprint('one, two, three')\n```\n\n```text\none...three\n```\n")
    run_guide("page.md", tmp_path)
    page.write_text(page.read_text().replace("one...three", "one...four"))
    with pytest.raises(
        AssertionError, match=r"block 2: the page says\none\.\.\.four\n\nbut the block before it prints"
    ):
        run_guide("page.md", tmp_path)


def test_every_block_of_a_guide_has_a_language_that_is_run_or_shown() -> None:
    languages = {block.language for guide in GUIDES for block in fenced(guide)}
    # "py": needs an artifact, and is run by tests/test_xmem_tracker_on_artifact.py
    assert languages <= {"python", "py", "text", "yaml", "toml", "sh"}
    for guide in GUIDES:
        assert text_of(guide).count("\n```") == 2 * len(fenced(guide)), f"{guide}: a block without a language"


# The site


def test_the_site_builds_without_a_warning_and_holds_every_page(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (built.returncode, built.stdout + built.stderr) == (0, "")
    for page in PAGES:
        folder = page.removeprefix("docs/").removesuffix(".md").removesuffix("index")
        assert (tmp_path / "site" / folder / "index.html").is_file(), page
    assert list((tmp_path / "site").rglob("*.py")) == []
    trace = (tmp_path / "site" / "reference" / "trace" / "index.html").read_text(encoding="utf-8")
    assert "TraceError" in trace
    passes = (tmp_path / "site" / "reference" / "passes" / "index.html").read_text(encoding="utf-8")
    missing = [load().__name__ for load in PASSES.values() if f"{load().__module__}.{load().__name__}" not in passes]
    assert missing == []
    assert "<strong>Exact:</strong>" in passes


def test_the_picture_of_the_pipeline_is_a_drawing_with_words_for_those_who_cannot_see_it() -> None:
    root = ElementTree.fromstring(text_of("docs/pipeline.svg"))
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"build", "pin", "trace", "link", "passes", "lower", "bank", "next_bank"} <= set(texts)
    assert root.find("{http://www.w3.org/2000/svg}desc") is not None


# Tables


def letters_of(manifest: Manifest, program: str) -> Mapping[str, int]:
    """The letters in README's shapes of that program."""
    image = manifest.seeing().size
    maps = {f"{times}{letter}": int(times or 1) * (image // 14) for times in ("", "2", "4") for letter in "hw"}
    if program == "segment":
        detection = manifest.detecting()
        (features,) = (port for port in manifest.program("ground").inputs if port.name == "features")
        own = {
            "Q": detection.queries,
            "L": manifest.reading().context_length,
            "B": detection.boxes,
            "K": detection.points,
            "D": features.sides()[1],
        }
    else:
        memory = manifest.tracking()
        ports = {port.name: port.sides() for port in manifest.program("track").inputs}
        own = {
            "O": memory.objects,
            "K": memory.points,
            "N": memory.conditioning_slots + memory.recent_slots,
            "P": memory.conditioning_slots + memory.pointer_slots - 1,
            "C": ports["bank.memory"][2],
            "D": ports["bank.pointer"][2],
        }
    return {"S": image, **maps, **own}


def spelled_port(dtype: str, sides: str, letters: Mapping[str, int]) -> str:
    """ "1,3,S,S" → "float32 [1, 3, 112, 112]"."""
    shape = [letters[side] if side in letters else int(side) for side in sides.split(",") if side]
    return f"{DTYPES.get(dtype, dtype)} {shape}"


def documented_ports(program: str, letters: Mapping[str, int]) -> dict[str, str]:
    """Name → "float32 [1, 3, 112, 112]", from the tables of README's contract of that program."""
    found: dict[str, str] = {}
    for names, spelled, *_ in rows(section(text_of("README.md"), f"## The contract of `{program}`")):
        dtype = ""
        shapes = re.findall(r"(\w+)? ?\[([^\]]*)\]", spelled)
        for name, (prefix, sides) in zip(re.findall(r"`([^`]+)`", names), shapes, strict=False):
            dtype = prefix or dtype
            found[name] = spelled_port(dtype, sides, letters)
    return found | {f"next_{name}": port for name, port in found.items() if name.startswith("bank.")}


def spelled(ports: Iterable[PortInfo]) -> dict[str, str]:
    return {port.name: str(port) for port in ports}


def test_readmes_contract_of_segment_lists_every_port_with_its_dtype_and_shape(artifacts: Callable[..., Path]) -> None:
    manifest = Manifest.load(artifacts())
    info = manifest.program("segment")
    assert documented_ports("segment", letters_of(manifest, "segment")) == spelled((*info.inputs, *info.outputs))


def test_readmes_contract_of_track_lists_every_port_of_every_policy(artifacts: Callable[..., Path]) -> None:
    manifest = Manifest.load(artifacts())
    letters = letters_of(manifest, "track")
    named: set[str] = set()
    for policy in ("recent", "selection", "samurai"):
        recipe = tiny_recipe(f"memory.policy={policy}")
        made = memory_policy(recipe.memory)
        inputs, outputs = track_ports(tiny_model(), made, recipe.programs["track"])
        documented = documented_ports("track", {**letters, "P": made.pointer_places})
        ports = {port.name: f"{port.dtype} {list(port.shape)}" for port in (*inputs, *outputs)}
        assert ports == {name: documented[name] for name in ports}
        named |= ports.keys()
    assert named == documented.keys()
    info = manifest.program("track")
    assert spelled((*info.inputs, *info.outputs)).items() <= documented_ports("track", letters).items()


def test_readme_says_what_the_parts_of_segment_and_the_step_take_and_give(artifacts: Callable[..., Path]) -> None:
    manifest = Manifest.load(artifacts())
    programs = {info.name: info for info in manifest.programs}
    contract = " ".join(section(text_of("README.md"), "## The contract of `segment`").split())
    said = contract.partition("`encode_text` gives ")[2].partition("`ground` takes these five")[0]
    ports = re.findall(r"`(\w+)` (f32|bool) \[([^\]]*)\]", said)
    letters = letters_of(manifest, "segment")
    kept = {name: spelled_port(dtype, sides, letters) for name, dtype, sides in ports}
    assert len(kept) == 5
    assert kept == spelled((*programs["encode_text"].outputs, *programs["encode_image"].outputs))

    segment, track, step = (programs[name] for name in ("segment", "track", "step"))
    prompts = {name: port for name, port in spelled(segment.inputs).items() if name.startswith("prompt_")}
    assert spelled(programs["ground"].inputs) == kept | prompts
    assert spelled(programs["ground"].outputs) == spelled(segment.outputs)
    assert "`step` takes the inputs of `segment` and of `track`" in contract
    assert spelled(step.inputs) == spelled((*segment.inputs, *track.inputs))
    detections = {f"detection.{name}": port for name, port in spelled(segment.outputs).items()}
    assert spelled(step.outputs) == spelled(track.outputs) | detections


def test_readme_lists_every_exit_code() -> None:
    listed = [int(code) for code, *_ in rows(section(text_of("README.md"), "## Exit codes"))[1:]]
    assert listed == sorted(ExitCode)


@dataclass(frozen=True)
class BranchDocument:
    """A document of branch points: the notes and the heading whose table it repeats, how many rows that has; and the
    factory of the models whose recipes have its pins."""

    path: str
    notes: str
    heading: str
    count: int
    factory: str

    def rows(self) -> list[Row]:
        tables = text_of(self.path).partition(QUIRKS)[0]
        return [row for row in rows(tables) if row[0] != "where"]

    def originals(self) -> list[Row]:
        notes = text_of(self.notes).partition(f"\n{self.heading}")[2]
        return [row[:2] for row in rows(notes) if row[0] != "where"]

    def pins_of_recipes(self) -> set[str]:
        recipes = map(load_recipe, sorted((ROOT / "recipes").glob("*.yaml")))
        return {pin for recipe in recipes if recipe.model.factory == self.factory for pin in recipe.pins}


QUIRKS = "\n## Quirks of the originals\n"
SAM3 = BranchDocument(
    "docs/branch_points.md", "golden/efficientsam3_m0_9/NOTES.md", "## 15. ", 45, "samonnx.models.efficientsam3:build"
)
SAM2 = BranchDocument(
    "docs/branch_points_sam2.md",
    "golden/sam2.1/NOTES.md",
    "## Runtime branches in the tracking path\n",
    46,
    "samonnx.models.sam2:build",
)
XMEM = BranchDocument(
    "docs/branch_points_xmem.md", "golden/xmem/NOTES.md", "## Runtime branches\n", 21, "samonnx.models.xmem:build"
)
SAM = BranchDocument(
    "docs/branch_points_sam.md",
    "golden/sam1/NOTES.md",
    "## Runtime branches (vit_b, 1024 x 1024)\n",
    16,
    "samonnx.models.sam:build",
)
SAM_AND_XMEM = "samonnx.models.sam_xmem:build"
"""The factory of models that have the branches of both."""


def called_pins(text: str) -> set[str]:
    """What is said to be a pin: "pins `a`, `b` and `c`"."""
    lists = re.findall(r"\bpins? ((?:`[^`]+`(?:, | and )?)+)", text)
    return {code for codes in lists for code in re.findall(r"`([^`]+)`", codes)}


@pytest.mark.parametrize("document", [SAM3, SAM2, SAM, XMEM], ids=lambda document: str(document.path))
def test_every_branch_of_the_original_is_a_pin_or_explained(document: BranchDocument) -> None:
    originals, listed = document.originals(), document.rows()
    assert len(originals) == document.count
    assert [row[:2] for row in listed[: len(originals)]] == originals
    for row in listed:
        assert len(row) == 3, row
        assert row[2], f"{row[0]}: neither a pin nor a reason"


def test_every_recipe_is_of_a_model_that_has_a_document_of_branch_points() -> None:
    factories = {load_recipe(recipe).model.factory for recipe in (ROOT / "recipes").glob("*.yaml")}
    assert factories == {SAM3.factory, SAM2.factory, SAM.factory, XMEM.factory, SAM_AND_XMEM}


def test_the_pins_of_sam_3s_branch_tables_are_those_of_its_recipes() -> None:
    codes = {code for row in SAM3.rows() for code in re.findall(r"`([^`]+)`", row[2])}
    named = {code for code in codes if code.startswith(("tracker.", "detector."))}
    assert named == SAM3.pins_of_recipes()


def test_the_pins_of_sam_2s_branch_tables_are_those_of_its_recipes_and_samurais() -> None:
    assert called_pins(" ".join(row[2] for row in SAM2.rows())) == SAM2.pins_of_recipes()


def test_every_quirk_of_the_originals_is_reproduced_or_mended_or_said_to_differ_and_how() -> None:
    quirks = [row for row in rows(text_of(SAM2.path).partition(QUIRKS)[2]) if row[0] != "in the original"]
    assert len(quirks) > 30
    for quirk in quirks:
        assert len(quirk) == 3, quirk
        assert quirk[1] in ("reproduced", "mended", "differs"), quirk
        assert called_pins(quirk[2]) <= SAM2.pins_of_recipes(), quirk
        places = re.findall(r"`([^`]+)`|\b(policy|runtime|no such option)\b", quirk[2])
        assert places, f"{quirk[0]}: where?"
