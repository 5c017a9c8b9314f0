"""Fixtures for the runtime's tests: hand-made artifact folders, built once a session and not to be written to."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runtime.hand_made_artifact import build


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two objects a call, with `track@first`."""
    folder = tmp_path_factory.mktemp("artifact") / "hand_made"
    build(folder)
    return folder


@pytest.fixture(scope="session")
def single_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network with one object a call: another recipe, other rows, equal numbers."""
    folder = tmp_path_factory.mktemp("artifact") / "single"
    build(folder, objects=1)
    return folder


@pytest.fixture(scope="session")
def motion_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two objects a call, a bank with a motion model's tensors, `track@first` and `track@2`."""
    folder = tmp_path_factory.mktemp("artifact") / "motion"
    build(folder, motion=True, filled=(2,))
    return folder
