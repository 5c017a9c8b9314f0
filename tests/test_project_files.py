from __future__ import annotations

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {normalised(name): pin for name, pin in pairs}


def direct_dependencies() -> set[str]:
    extras = PROJECT["project"]["optional-dependencies"].values()
    listed = [
        *PROJECT["project"]["dependencies"],
        *PROJECT["build-system"]["requires"],
        *(d for e in extras for d in e),
    ]
    names = {normalised(re.split(r"[<>=\[;~! ]", requirement)[0]) for requirement in listed}
    return names - {"samonnx"}


def test_the_constraints_pin_every_direct_dependency_and_nothing_else() -> None:
    assert set(pinned()) == direct_dependencies()


@pytest.mark.parametrize("name", sorted(direct_dependencies() - {"setuptools"}))
def test_the_tests_run_with_the_pinned_versions(name: str) -> None:
    assert version(name).partition("+")[0] == pinned()[name]


def test_every_package_folder_is_packed() -> None:
    folders = {path.parent for top in ("samonnx", "passes") for path in (ROOT / top).glob("**/*.py")}
    names = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    found = {f"samonnx.{name}" if name.startswith("passes") else name for name in names}
    assert found == set(PROJECT["tool"]["setuptools"]["packages"])
    assert [folder.name for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_the_passes_folder_is_linked_into_the_package() -> None:
    link = ROOT / "samonnx" / "passes"
    assert link.is_symlink()
    assert link.resolve() == ROOT / "passes"
