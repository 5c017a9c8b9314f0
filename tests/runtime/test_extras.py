from __future__ import annotations

import sys

import pytest

from samonnx.runtime.extras import MissingExtraError, require_extra


def test_an_installed_module_is_imported() -> None:
    assert require_extra("xml.dom", "video").__name__ == "xml.dom"


def test_a_missing_package_is_an_error_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools.mask", None)
    with pytest.raises(MissingExtraError) as caught:
        require_extra("pycocotools.mask", "coco")
    assert str(caught.value) == (
        "the Python package 'pycocotools' is not installed; run: pip install \"samonnx[coco]\""
    )
