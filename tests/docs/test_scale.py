"""The tables of docs/scale.md are what its script computes."""

import runpy
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_holds_what_the_script_computes():
    page = (DOCS / "scale.md").read_text()
    assert runpy.run_path(str(DOCS / "scale.py"))["put_into"](page) == page
