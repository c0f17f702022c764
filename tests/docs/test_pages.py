"""The documentation: its Python examples run, and its links, options, and test names exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from tlcli.cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("docs/*.md")), *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
ANY_BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
EXAMPLES = [
    pytest.param(code, id=f"{page.stem}-{number}", marks=() if page.stem == "README" else pytest.mark.slow)
    for page in PAGES
    for number, code in enumerate(BLOCK.findall(page.read_text()), 1)
    if "tlcli import" in code  # tests/commands/export/test_formats.py runs the examples without it
]

OTHER_PROGRAMS = {
    *("--logdir",),  # TensorBoard
    *("--nnodes", "--nproc-per-node", "--max-restarts", "--rdzv-backend", "--rdzv-id", "--rdzv-endpoint"),  # torchrun
    *("--tag", "--build-arg", "--rm", "--user", "--volume", "--gpus", "--publish", "--hostname"),  # Docker
    "--data-binary",  # curl
    *("--scale", "--speed", "--write"),  # benchmarks/head.py, benchmarks/backbones.py, docs/scale.py
}


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
    # Smaller images, if layers are trained.
    quick = code.replace("NetworkSettings(freeze", "NetworkSettings(size=32, freeze")
    exec(compile(quick, "example", "exec"), {})
    assert capsys.readouterr().out


def test_every_page_is_in_the_navigation():
    pages = {page.stem for page in ROOT.glob("docs/*.md")} - {"index"}
    text = (ROOT / "docs/index.md").read_text()
    listed = re.search(r"```\{toctree\}\n.*?\n\n(.*?)```", text, re.DOTALL)
    assert set(listed[1].split()) == pages
    assert {f"{name}.md" for name in pages} <= set(re.findall(r"\]\(([\w-]+\.md)\)", text))


def anchors_of(page):
    """Return the anchors of a page's headings, as code hosting sites and Sphinx name them."""
    headings = re.findall(r"^#+ (.*)$", ANY_BLOCK.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_relative_links_resolve(page):
    missing = []
    for target in re.findall(r"\]\(([^)\s]+)\)", ANY_BLOCK.sub("", page.read_text())):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        if not linked.exists() or (anchor and page.stem != "reference" and anchor not in anchors_of(linked)):
            missing.append(target)
    assert not missing


def options(command):
    """Yield the options of a Typer command and its subcommands."""
    for parameter in command.params:
        yield from [*parameter.opts, *parameter.secondary_opts]
    for subcommand in getattr(command, "commands", {}).values():
        yield from options(subcommand)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_options_exist(page):
    known = {*options(typer.main.get_command(app)), *OTHER_PROGRAMS, "--help"}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", page.read_text())) <= known


def test_the_readme_is_short():
    assert (ROOT / "README.md").stat().st_size <= 12_288


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_named_files_exist(page):
    """Tests, benchmarks and modules that a page names."""
    names = re.findall(r"`((?:tests|benchmarks|docs|tlcli)/[\w/.]*\w)`", page.read_text())
    assert [name for name in names if "NAME" not in name and not (ROOT / name).exists()] == []
