"""inspect.html in a browser: self-contained, safe with hostile names, and patches open their images."""

import json
import re

import pytest
from playwright.sync_api import expect
from visits import DESKTOP, PAPER, PHONE, TRAPS, colors, ground

from tlcli.commands.inspect import inspect
from tlcli.settings import ComputeSettings, InspectSettings

pytestmark = pytest.mark.slow
WIDTHS = pytest.mark.parametrize("width", [PHONE, DESKTOP])
SIZES = {TRAPS["disc"]: 96, TRAPS["square"]: 96, TRAPS["stripes"]: 1536}
"""Width in pixels of the images of each class."""
SCHEMES = pytest.mark.parametrize("dark", [False, True])


@pytest.fixture(scope="module")
def written(hostile):
    """The page for two units of each convolution of LeNet-5; `units.jsonl` is next to it."""
    out = hostile.parent / "Einheiten <u>"
    settings = InspectSettings(
        network="lenet5",
        weights="none",
        data=hostile,
        out=out,
        layers=("conv1", "conv2"),
        units=2,
        compute=ComputeSettings(workers=1, device="cpu"),
    )
    inspect(settings)
    return out / "inspect.html"


def patches(shown):
    return shown.page.get_by_role("button", name=" of unit ")


def rows_of(written):
    """Return the lines of `units.jsonl` by layer, unit and rank."""
    lines = (written.parent / "units.jsonl").read_text(encoding="utf8").splitlines()
    return {(row["layer"], row["unit"], row["rank"]): row for row in map(json.loads, lines)}


def key_of(patch):
    """Return layer, unit and rank of a patch or projection."""
    layer = patch.evaluate("patch => patch.closest('section').id").removeprefix("layer-")
    rank, unit = re.match(r"\w+ (\d+) of unit (\d+),", patch.get_attribute("aria-label")).groups()
    return int(layer), int(unit), int(rank)


def opened(shown):
    return shown.page.get_by_role("dialog")


@WIDTHS
@SCHEMES
def test_the_page_is_complete_and_readable(visit, written, tmp_path, width, dark):
    shown = visit(written, width=width, dark=dark)
    assert shown.page.title() == "lenet5 – tlcli inspect"
    assert shown.page.get_by_role("heading").all_text_contents() == ["lenet5", "1 conv1", "2 conv2"]
    assert patches(shown).count() == 2 * 2 * 2 * 9  # layers, units, patches and projections
    assert shown.broken_images() == []
    assert (shown.overflow(), shown.low_contrast()) == ([], [])
    for full in (False, True):
        seen = shown.screenshot(tmp_path / f"{width}{'-dark' * dark}{'-full' * full}.png", full=full)
        assert colors(seen) > 100
        assert ground(seen) < 40 if dark else ground(seen) > 240


@pytest.mark.slow
@WIDTHS
@SCHEMES
def test_a_patch_opens_its_image(visit, written, tmp_path, width, dark):
    shown, rows = visit(written, width=width, dark=dark), rows_of(written)
    seen = set()
    for number in range(0, patches(shown).count(), 7):
        patch = patches(shown).nth(number)
        row = rows[key_of(patch)]
        expect(opened(shown)).not_to_be_visible()
        patch.click()
        expect(opened(shown)).to_be_visible()
        facts = opened(shown).get_by_role("definition").all_text_contents()
        assert facts[:2] == [row["path"], row["label"]]
        seen.add(row["label"])
        image, frame = opened(shown).locator("img"), opened(shown).locator(".frame i")
        natural, across = image.evaluate("image => image.decode().then(() => [image.naturalWidth, image.width])")
        assert natural > 0
        outer, inner = image.bounding_box(), frame.bounding_box()
        scale = across / SIZES[row["label"]]
        x0, y0, x1, y1 = row["source_box"]
        assert (inner["x"] - outer["x"], inner["y"] - outer["y"]) == pytest.approx((x0 * scale, y0 * scale), abs=1)
        assert (inner["width"], inner["height"]) == pytest.approx(((x1 - x0) * scale, (y1 - y0) * scale), abs=1)
        for axis, side in (("x", "width"), ("y", "height")):
            assert outer[axis] - 1 <= inner[axis]
            assert inner[axis] + inner[side] <= outer[axis] + outer[side] + 1
        assert (shown.overflow(), shown.low_contrast()) == ([], [])
        shown.screenshot(tmp_path / f"{width}{'-dark' * dark}-{number}.png")
        opened(shown).get_by_role("button", name="Close").click()
    assert seen > {TRAPS["disc"]}


def test_closing_the_dialog(visit, written):
    shown = visit(written)
    patches(shown).first.click()
    shown.page.keyboard.press("Escape")
    expect(opened(shown)).not_to_be_visible()
    patches(shown).first.click()
    opened(shown).locator("dl").click()
    expect(opened(shown)).to_be_visible()
    shown.page.mouse.click(8, 8)
    expect(opened(shown)).not_to_be_visible()


def test_keyboard_navigation(visit, written):
    shown, rows = visit(written), rows_of(written)
    press, focused = shown.page.keyboard.press, shown.page.locator(":focus")
    for name in ("1 conv1", "2 conv2"):
        press("Tab")
        assert focused.text_content() == name
    press("Enter")
    assert shown.page.evaluate("location.hash") == "#layer-2"
    press("Tab")
    assert focused.get_attribute("aria-label").startswith("patch 1 of unit")
    assert focused.evaluate("patch => getComputedStyle(patch).outlineStyle") == "solid"
    for number, key in enumerate(("Enter", "Space"), start=1):
        layer, _, rank = patch = key_of(focused)
        assert (layer, rank) == (2, number)
        press(key)
        expect(opened(shown).get_by_text(rows[patch]["path"])).to_be_visible()
        assert focused.text_content() == "Close"
        press(key)
        expect(opened(shown)).not_to_be_visible()
        assert key_of(focused) == patch
        press("Tab")


def test_names_are_escaped(visit, written):
    shown = visit(written)
    for label in TRAPS.values():
        shown.page.locator("button").and_(shown.page.get_by_label(label)).first.click()
        expect(opened(shown).get_by_text(label, exact=True)).to_be_visible()
        shown.page.keyboard.press("Escape")
    assert shown.page.locator("svg, b[onclick], img[src=x]").count() == 0


@SCHEMES
def test_printing(visit, written, dark):
    shown = visit(written, width=PAPER, dark=dark)
    shown.page.emulate_media(media="print")
    assert shown.overflow() == []
    expect(shown.page.get_by_role("navigation")).not_to_be_visible()
    expect(shown.page.get_by_role("heading", name="conv2")).to_be_visible()
    first, second = (shown.page.get_by_role("article").nth(number).bounding_box() for number in range(2))
    assert (first["y"], first["width"]) == (second["y"], second["width"])  # side by side, to save paper
    paper = shown.printed()
    assert paper.count(b"/Type /Page\n") in {1, 2, 3}
    assert paper.count(b"/Subtype /Image") > 2 * 2 * 2  # patches, projections and the filters
