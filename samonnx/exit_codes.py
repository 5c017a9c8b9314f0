"""What the commands' exit codes mean, and the one runner that turns exceptions into them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import IntEnum

from samonnx.errors import SamonnxError, VerificationError

__all__ = ["ExitCode", "run_command"]


class ExitCode(IntEnum):
    """Exit codes that scripts can rely on, the same for every command."""

    OK = 0
    ERROR = 1  # bad input, a mismatch, a missing extra: a SamonnxError, with its message on stderr
    USAGE = 2  # the command line itself is wrong; also argparse's code
    CHECK_FAILED = 3  # a verification or a golden check failed
    INTERRUPTED = 130  # Ctrl-C


_EXTRA_OF_MODULE = {
    **dict.fromkeys(("torch", "onnx", "onnx_ir", "onnxscript", "onnx_graphsurgeon"), "compile"),
    **dict.fromkeys(("pydantic", "yaml", "safetensors"), "compile"),
    **dict.fromkeys(("av", "PIL", "rich"), "video"),
}


def run_command(function: Callable[[], int]) -> int:
    """Run a command's body and return its exit code (see `ExitCode`).

    A message without a traceback goes to stderr for a `SamonnxError`, for Ctrl-C and for a missing package of one of
    samonnx's extras. Any other exception is a mistake of ours and keeps its traceback.
    """
    try:
        return function()
    except VerificationError as error:
        return _report(str(error), ExitCode.CHECK_FAILED)
    except SamonnxError as error:
        return _report(str(error), ExitCode.ERROR)
    except KeyboardInterrupt:
        return _report("interrupted", ExitCode.INTERRUPTED)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        extra = _EXTRA_OF_MODULE.get(package)
        if extra is None:
            raise
        return _report(
            f"this command needs the package `{package}`, which is not installed: pip install 'samonnx[{extra}]'",
            ExitCode.ERROR,
        )


def _report(message: str, code: ExitCode) -> int:
    sys.stderr.write(f"samonnx: {message}\n")
    return int(code)
