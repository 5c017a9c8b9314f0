"""--provider on command lines, the same for every command that runs graphs."""

from __future__ import annotations

import argparse

__all__ = ["add_provider_option"]


def add_provider_option(group: argparse._ArgumentGroup) -> None:
    """Add --provider to what is parsed, as `providers`: a list of names as they were given, or None.

    `samonnx.runtime.session.execution_providers` reads the names, and refuses what is not there.
    """
    group.add_argument(
        "--provider",
        action="append",
        dest="providers",
        metavar="NAME",
        help="execution provider of ONNX Runtime: cpu (the default), cuda, tensorrt, coreml, …; repeat it in order of "
        "preference",
    )
