"""The Python examples of the pages and of README run as they stand; those that train layers, on smaller images."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
EXAMPLES = [
    pytest.param(code, id=f"{page.stem}-{number}")
    for page in [*sorted(ROOT.glob("docs/*.md")), ROOT / "README.md"]
    for number, code in enumerate(BLOCK.findall(page.read_text()), 1)
    if "tlcli import" in code  # tests/commands/test_export.py runs those without it
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """One cache for all."""
    return tmp_path_factory.mktemp("features")


@pytest.mark.parametrize("code", EXAMPLES)
def test_examples_run(code, photos, cache, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TLCLI_CACHE", str(cache))
    for name in ("photos", "sample_data/pictures", "sample_data/to_predict"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).symlink_to(photos)
    Path("new").symlink_to(photos / "disc")
    quick = code.replace("NetworkSettings(freeze", "NetworkSettings(size=32, freeze")  # where layers are trained
    exec(compile(quick, "example", "exec"), {})
    assert capsys.readouterr().out


def test_every_page_has_its_place_in_the_navigation():
    pages = {page.stem for page in ROOT.glob("docs/*.md")} - {"index"}
    listed = re.search(r"```\{toctree\}\n.*?\n\n(.*?)```", (ROOT / "docs/index.md").read_text(), re.DOTALL)
    assert set(listed[1].split()) == pages
