"""The page of compare in a browser: self-contained, readable, and safe with hostile names."""

import pytest
from playwright.sync_api import expect
from visits import DESKTOP, PAPER, PHONE, TRAPS, colors, ground

from tlcli.commands.compare import compare
from tlcli.commands.finetune import finetune
from tlcli.settings import (
    CacheSettings,
    CompareSettings,
    ComputeSettings,
    FinetuneSettings,
    NetworkSettings,
    TrainingSettings,
)

pytestmark = pytest.mark.slow
WIDTHS = pytest.mark.parametrize("width", [PHONE, DESKTOP])
SCHEMES = pytest.mark.parametrize("dark", [False, True])
NETWORKS = {
    "Lauf <u>A": NetworkSettings(size=64),
    "Lauf <u>B": NetworkSettings(backbone="lenet5", weights="none", freeze="none"),
}


@pytest.fixture(scope="module")
def written(hostile):
    """The page that compares a good and a poor run, and its metrics."""
    for name, network in NETWORKS.items():
        settings = FinetuneSettings(
            data=hostile,
            out=hostile.parent / name,
            network=network,
            training=TrainingSettings(epochs=None if network.freeze == "all" else 1),
            compute=ComputeSettings(workers=1, device="cpu"),
            cache=CacheSettings(directory=hostile.parent / "cache"),
        )
        finetune(settings)
    a, b = (hostile.parent / name for name in NETWORKS)
    page = hostile.parent / "Vergleich <u>.html"
    return page, compare(CompareSettings(run_a=a, run_b=b, out=page)).metrics


@WIDTHS
@SCHEMES
def test_the_page_is_complete_and_readable(visit, written, tmp_path, width, dark):
    page, metrics = written
    shown = visit(page, width=width, dark=dark)
    assert "Lauf <u>A" in shown.page.title()
    assert metrics["only_a"] > 3
    for side, count in (("B", metrics["only_b"]), ("A", metrics["only_a"])):
        section = shown.page.locator(f"#only-{side.lower()}")
        expect(section.get_by_role("heading")).to_contain_text(f"Only {side} is correct: {count}")
        assert section.get_by_role("figure").count() == section.get_by_role("link").count() == count
    assert shown.page.locator("#classes tbody tr").count() == 3
    assert shown.broken_images() == []
    assert (shown.overflow(), shown.low_contrast()) == ([], [])
    for full in (False, True):
        seen = shown.screenshot(tmp_path / f"{width}{'-dark' * dark}{'-full' * full}.png", full=full)
        assert colors(seen) > 100
        assert ground(seen) < 40 if dark else ground(seen) > 230


def test_a_link_opens_the_image(visit, written):
    page, metrics = written
    shown = visit(page)
    addresses = shown.page.get_by_role("link").evaluate_all(
        "all => all.map(one => decodeURIComponent(new URL(one.href).pathname))"
    )
    paths = [one["path"] for side in ("only_b", "only_a") for one in metrics["flips"][side]]
    assert [address for address in addresses if address.endswith(".jpg")] == paths


def test_names_are_escaped(visit, written):
    page, _ = written
    shown = visit(page)
    for label in TRAPS.values():
        assert shown.page.get_by_text(label, exact=True).filter(visible=True).count() > 0
    assert shown.page.locator("[onload], [onclick], [onerror], svg, u").count() == 0


@SCHEMES
def test_printing(visit, written, dark):
    page, _ = written
    shown = visit(page, width=PAPER, dark=dark)
    shown.page.emulate_media(media="print")
    assert shown.overflow() == []
    expect(shown.page.get_by_role("navigation")).not_to_be_visible()
    assert 1 <= shown.printed().count(b"/Type /Page\n") <= 6
