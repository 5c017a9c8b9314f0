from __future__ import annotations

from pathlib import Path

import pytest

from samonnx.runtime.manifest import Manifest
from samonnx.runtime.session import SessionError
from samonnx.validation import ValidateError
from samonnx.validation_probes import map_ports
from tests.runtime.hand_made_artifact import build


def test_a_graph_whose_maps_were_folded_away_is_refused(tmp_path: Path) -> None:
    build(tmp_path / "a")
    manifest = Manifest.load(tmp_path / "a")
    with pytest.raises(ValidateError, match=r"--maps graph: .*track.* has no value 'tracker_neck/high_res_0'.*leave"):
        map_ports(tmp_path / "a", manifest, None)
    with pytest.raises(SessionError, match="was not compiled for target 'web'"):
        map_ports(tmp_path / "a", manifest, "web")
