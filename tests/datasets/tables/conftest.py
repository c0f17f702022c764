"""Fixtures: a folder of images for tables."""

import pytest
from written_tables import FILES


@pytest.fixture
def folder(tmp_path):
    """Empty files with the names in the tables."""
    (tmp_path / "in").mkdir()
    for name in FILES:
        (tmp_path / name).write_bytes(b"")
    return tmp_path
