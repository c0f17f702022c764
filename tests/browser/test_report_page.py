"""report.html as its reader meets it, of a head and of a whole network: it needs nothing else, and names stay text."""

import pytest
from visits import DESKTOP, PAPER, PHONE, TRAPS, colours, ground

from tlcli.commands.finetune import finetune
from tlcli.settings import CacheSettings, ComputeSettings, FinetuneSettings, NetworkSettings, TrainingSettings

WIDTHS = pytest.mark.parametrize("width", [PHONE, DESKTOP])
SCHEMES = pytest.mark.parametrize("dark", [False, True])

KINDS = {
    "head": (NetworkSettings(size=64), TrainingSettings()),
    "network": (NetworkSettings(size=32, freeze="none"), TrainingSettings(epochs=1)),
}


@pytest.fixture(scope="module", params=KINDS)
def written(request, hostile):
    """The page of a run with test pictures and one picture that could not be read."""
    network, training = KINDS[request.param]
    out = hostile.parent / f"Lauf <u>{request.param}"
    settings = FinetuneSettings(
        data=hostile,
        out=out,
        network=network,
        training=training,
        compute=ComputeSettings(workers=1, device="cpu"),
        cache=CacheSettings(directory=hostile.parent / "cache"),
    )
    info = finetune(settings)
    assert (info["images"]["test"], info["images"]["failed"]) == (15, 1)
    return out / "report.html"


@WIDTHS
@SCHEMES
def test_it_is_whole_and_readable(visit, written, tmp_path, width, dark):
    shown = visit(written, width=width, dark=dark)
    name = written.parent.name
    assert name in shown.page.title()
    assert shown.page.get_by_role("heading", name=name, exact=True).is_visible()
    for split in ("Test", "Validation"):
        assert shown.page.get_by_role("heading", name=split).first.is_visible()
    assert shown.broken_pictures() == []
    assert (shown.sticking_out(), shown.faint()) == ([], [])
    for full in (False, True):
        seen = shown.screenshot(tmp_path / f"{width}{'-dark' * dark}{'-full' * full}.png", full=full)
        assert colours(seen) > 50
        assert ground(seen) < 40 if dark else ground(seen) > 230


def test_names_are_text(visit, written):
    shown = visit(written)
    for label in TRAPS.values():
        assert shown.page.get_by_text(label, exact=True).filter(visible=True).count() > 0
    assert shown.page.get_by_text("<b onclick='alert(4)'>.jpg").filter(visible=True).count() > 0
    assert shown.page.locator("[onload], [onclick], [onerror], i:text('mehr')").count() == 0


@SCHEMES
def test_on_paper(visit, written, dark):
    shown = visit(written, width=PAPER, dark=dark)
    shown.page.emulate_media(media="print")
    assert shown.sticking_out() == []
    assert shown.page.get_by_text("balanced accuracy").filter(visible=True).count() > 0
    assert 1 <= shown.printed().count(b"/Type /Page\n") <= 12
