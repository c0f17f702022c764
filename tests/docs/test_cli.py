"""docs/cli.md is what docs/cli.py generates from the commands' help."""

import runpy
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_reference_of_the_command_line_is_up_to_date():
    assert (DOCS / "cli.md").read_text("utf8") == runpy.run_path(str(DOCS / "cli.py"))["page"](), (
        "run: python docs/cli.py"
    )
