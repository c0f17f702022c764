"""The tests of engines export every network anew."""

import pytest

from tlcli.engines import onnx_export


@pytest.fixture(scope="module", autouse=True)
def exported_anew(exported_once):
    """Do without the exports of other tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_export, "_export", exported_once)
        yield
