from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

import samonnx

ROOT = Path(__file__).resolve().parents[1]

# The names that the base install does not bring, by import name.
EXTRAS = (
    "torch",
    "onnx",
    "onnx_ir",
    "onnxscript",
    "onnx_graphsurgeon",
    "pydantic",
    "yaml",
    "rich",
    "safetensors",
    "av",
    "PIL",
    "ftfy",
    "regex",
    "osam",
    "pycocotools",
)

BLOCKER = f"""
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {EXTRAS!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
        return None

sys.meta_path.insert(0, Blocker())
"""


def in_base_install(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter in which none of the extras' packages can be imported."""
    program = BLOCKER + textwrap.dedent(code)
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_public_names_are_these() -> None:
    assert samonnx.__all__ == [
        "Recipe",
        "SamonnxError",
        "__version__",
        "compile_recipe",
        "link",
        "load_recipe",
        "trace",
        "verify",
    ]
    assert set(samonnx.__all__) <= set(dir(samonnx))


@pytest.mark.parametrize("name", ["Recipe", "load_recipe", "compile_recipe"])
def test_classes_and_functions_load_on_first_use(name: str) -> None:
    value = getattr(samonnx, name)
    assert isinstance(value, type | FunctionType)
    assert getattr(samonnx, name) is value


@pytest.mark.parametrize("name", ["trace", "link", "verify"])
def test_names_of_submodules_are_the_modules_in_any_order_of_imports(name: str) -> None:
    module = getattr(samonnx, name)
    assert isinstance(module, ModuleType)
    assert module.__name__ == f"samonnx.{name}"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'samonnx' has no attribute 'nothing'"):
        samonnx.nothing  # noqa: B018  # the access is the test


def test_importing_the_package_loads_nothing_heavy() -> None:
    done = in_base_install(
        """
        before = set(sys.modules)
        import samonnx
        samonnx.__version__, samonnx.SamonnxError
        loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
        print(sorted(loaded & {"numpy", "onnxruntime", "samonnx"}))
        """
    )
    assert (done.stderr, done.stdout) == ("", "['samonnx']\n")


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_the_command_line_starts_without_the_extras(argument: str) -> None:
    done = in_base_install("from samonnx.cli import main; sys.exit(main(sys.argv[1:]))", argument)
    assert (done.returncode, done.stderr) == (0, "")
    assert "samonnx" in done.stdout


def test_the_runtime_imports_without_the_extras() -> None:
    done = in_base_install(
        """
        import importlib, pkgutil, samonnx.runtime
        for module in pkgutil.walk_packages(samonnx.runtime.__path__, "samonnx.runtime."):
            importlib.import_module(module.name)
        """
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_command_of_the_compiler_says_which_extra_it_needs() -> None:
    done = in_base_install("from samonnx.cli import main; sys.exit(main(['schema']))")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        "samonnx: this command needs the package `pydantic`, which is not installed: pip install 'samonnx[compile]'\n"
    )


def test_passes_are_importable_under_the_package_from_the_repository_root() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import samonnx.passes, sys; print(samonnx.passes.__name__, 'torch' in sys.modules)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stderr, done.stdout) == ("", "samonnx.passes False\n")
