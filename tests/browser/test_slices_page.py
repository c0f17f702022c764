"""The page of evaluate --by in a browser: self-contained, readable, and safe with hostile names."""

import json

import pytest
from playwright.sync_api import expect
from visits import DESKTOP, PHONE, TRAPS, colors, ground

from tlcli.commands.evaluate import evaluate
from tlcli.commands.finetune import finetune
from tlcli.settings import CacheSettings, ComputeSettings, EvaluateSettings, FinetuneSettings, NetworkSettings

pytestmark = pytest.mark.slow
WIDTHS = pytest.mark.parametrize("width", [PHONE, DESKTOP])
SCHEMES = pytest.mark.parametrize("dark", [False, True])
WRONG = "Kamera <u>&"


@pytest.fixture(scope="module")
def written(hostile):
    """The page of slices by a column, of which one has wrong labels, and the result."""
    root, run = hostile.parent, hostile.parent / "Scheiben <u>"
    compute = ComputeSettings(workers=1, device="cpu")
    finetune(
        FinetuneSettings(
            data=hostile,
            out=run,
            network=NetworkSettings(size=64),
            compute=compute,
            cache=CacheSettings(directory=root / "cache"),
        )
    )
    names = list(TRAPS.values())
    rows = [json.loads(line) for line in hostile.read_text().splitlines()]
    for number, row in enumerate(rows):
        del row["split"]
        row["camera"] = "other"
        if number % 2:
            row |= {"camera": WRONG, "label": names[(names.index(row["label"]) + 1) % 3]}
    (root / "labels.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    page = root / "Scheiben <u>.html"
    settings = EvaluateSettings(run=run, data=root / "labels.jsonl", by="camera", out=page, compute=compute)
    return page, evaluate(settings)


@WIDTHS
@SCHEMES
def test_the_page_is_complete_and_readable(visit, written, tmp_path, width, dark):
    page, result = written
    shown = visit(page, width=width, dark=dark)
    (worse,) = [row for row in result["slices"] if row["worse"]]
    assert worse["name"] == WRONG
    rows = shown.page.locator("#slices tbody tr")
    assert rows.count() == 2
    expect(rows.filter(has_text="worse")).to_contain_text(WRONG)
    section = shown.page.locator(".errors")
    errors = worse["images"] - worse["correct"]
    expect(section.get_by_role("heading")).to_have_text(f"{WRONG}: {errors} errors")
    assert section.get_by_role("figure").count() == section.get_by_role("link").count() == errors > 5
    assert shown.page.locator("u").count() == 0, "names are text"
    assert shown.broken_images() == []
    assert (shown.overflow(), shown.low_contrast()) == ([], [])
    for full in (False, True):
        seen = shown.screenshot(tmp_path / f"{width}{'-dark' * dark}{'-full' * full}.png", full=full)
        assert colors(seen) > 100
        assert ground(seen) < 40 if dark else ground(seen) > 230
