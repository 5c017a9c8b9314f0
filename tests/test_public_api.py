from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
import textwrap
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

import samonnx
import samonnx.passes

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
        "Component",
        "Port",
        "Program",
        "Recipe",
        "SamonnxError",
        "TypedPort",
        "Wire",
        "Wiring",
        "__version__",
        "compile",
        "compile_recipe",
        "link",
        "load_recipe",
        "optimize",
        "trace",
        "verify",
    ]
    assert set(samonnx.__all__) <= set(dir(samonnx))


CALLED_AS = {
    "compile": "compile_recipe",
    "link": "link",
    "optimize": "optimize",
    "trace": "trace",
    "verify": "verify",
}


@pytest.mark.parametrize("name", sorted(set(samonnx.__all__) - {"__version__", *CALLED_AS}))
def test_classes_and_functions_load_on_first_use(name: str) -> None:
    value = getattr(samonnx, name)
    assert isinstance(value, type | FunctionType)
    assert getattr(samonnx, name) is value


@pytest.mark.parametrize("name", CALLED_AS)
def test_names_of_submodules_are_the_modules_in_any_order_of_imports(name: str) -> None:
    module = getattr(samonnx, name)
    assert isinstance(module, ModuleType)
    assert module.__name__ == f"samonnx.{name}"


@pytest.mark.parametrize("name", CALLED_AS)
def test_a_module_is_called_like_its_function(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module(f"samonnx.{name}")
    assert callable(module)
    assert inspect.signature(module) == inspect.signature(getattr(module, CALLED_AS[name]))
    monkeypatch.setattr(module, CALLED_AS[name], lambda *args, **keywords: (args, keywords))
    assert module(1, two=2) == ((1,), {"two": 2})


def test_a_module_that_is_called_wrongly_says_so_as_its_function_would() -> None:
    with pytest.raises(TypeError, match=r"link\(\) missing 1 required positional argument: 'traced'"):
        samonnx.link(None)  # type: ignore[call-arg, arg-type]


def test_passes_are_all_public_by_the_names_of_their_classes() -> None:
    classes = {load().__name__ for load in samonnx.passes.PASSES.values()}
    assert classes <= set(samonnx.passes.__all__)
    assert set(samonnx.passes.__all__) <= set(dir(samonnx.passes))
    for name in samonnx.passes.__all__:
        assert getattr(samonnx.passes, name) is not None
    with pytest.raises(AttributeError, match=r"module 'samonnx.passes' has no attribute 'Nothing'"):
        samonnx.passes.Nothing  # noqa: B018  # the access is the test


def documented() -> list[tuple[str, object]]:
    """Public names, and public methods of public classes."""
    found: list[tuple[str, object]] = []
    for module in (samonnx, samonnx.passes):
        for name in module.__all__:
            value = getattr(module, name)
            if isinstance(value, ModuleType) and value is not samonnx.passes:
                value = getattr(value, CALLED_AS[name])
            if callable(value):
                found.append((f"{module.__name__}.{name}", value))
            if isinstance(value, type):
                own = {
                    key: item
                    for key, item in vars(value).items()
                    if f"{name}.{key}" == getattr(item, "__qualname__", "")
                }
                found += [(f"{module.__name__}.{name}.{key}", own[key]) for key in own if not key.startswith("_")]
    return found


@pytest.mark.parametrize(("name", "value"), documented(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_public_callable_has_a_docstring(name: str, value: object) -> None:
    text = inspect.getdoc(value) or ""
    assert text, name
    assert not text.startswith(f"{getattr(value, '__name__', '')}("), f"{name}: the one that dataclass makes"


SPEAKS_OF_TENSORS = ("optimize", "trace", "verify", "link", "unroll", "assert_exact")


@pytest.mark.parametrize("name", [*sorted({*CALLED_AS} - {"compile"}), "unroll", "assert_exact", "run_passes"])
def test_public_functions_say_what_they_take_and_what_they_raise(name: str) -> None:
    owner = samonnx if name in CALLED_AS else samonnx.passes
    text = inspect.getdoc(inspect.unwrap(getattr(owner, name))) or ""
    assert "Raises" in text
    if name in SPEAKS_OF_TENSORS:
        assert "shape" in text or "[O" in text or "dimension" in text


def test_a_users_program_passes_mypy_strict_and_runs(tmp_path: Path) -> None:
    program = Path("tests") / "user_program" / "program.py"
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(program)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert [line for line in checked.stdout.splitlines() if line.startswith(str(program))] == []
    assert checked.stderr == ""
    command = [sys.executable, str(program), "recipes/efficientsam3_tiny.yaml", str(tmp_path / "out")]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ran.returncode, "Traceback" in ran.stderr) == (0, False), ran.stderr
    assert "nothing feeds 'read'" in ran.stdout
    assert (tmp_path / "out" / "manifest.json").is_file()


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
        print(sorted(loaded & {"numpy", "onnxruntime", "onnx", "torch", "samonnx"}))
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
