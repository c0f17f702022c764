"""The page of `tlcli label` in a browser, with a real session: by mouse, by keyboard alone, on a phone, in two tabs."""

from __future__ import annotations

import csv
import time

import pytest
from PIL import Image
from playwright.sync_api import expect
from sessions import flat_copy, serve_labels
from visits import DESKTOP, PHONE, ground

NAMES = ["disc", "square", "stripes"]


@pytest.fixture(scope="module")
def inbox(photos, tmp_path_factory):
    return flat_copy(photos, tmp_path_factory.mktemp("page") / "inbox")


@pytest.fixture(scope="module")
def cache(inbox):
    return inbox.parent / "cache"


@pytest.fixture
def session(inbox, cache, tmp_path):
    """A session with three classes whose features are computed."""
    with serve_labels(inbox, tmp_path / "labels.csv", cache=cache, classes=tuple(NAMES)) as client:
        client.out = tmp_path / "labels.csv"
        client.featurized(len(list(inbox.iterdir())))
        yield client


def rows(client):
    if not client.out.exists():
        return []
    with client.out.open(encoding="utf8", newline="") as file:
        return list(csv.DictReader(file))


def truth(text):
    return next(name for name in NAMES if f"{name}-" in text)


def tiles(page):
    return page.locator("#grid [role=option]")


def saved(client, number):
    """Wait until so many labels are on disk."""
    for _ in range(100):
        if len(rows(client)) == number:
            return
        time.sleep(0.1)
    raise AssertionError(f"{len(rows(client))} labels, expected {number}")


def label_batch(page):
    """Label the images of a batch by keyboard: the class key for each. Return how many there were."""
    expect(tiles(page).first).to_be_visible()
    labels = [truth(tile.get_attribute("aria-label")) for tile in tiles(page).all()]
    page.keyboard.press("Home")
    for label in labels:
        page.keyboard.press(str(NAMES.index(label) + 1))
    return len(labels)


@pytest.mark.parametrize(
    ("width", "dark"),
    [
        (DESKTOP, False),
        pytest.param(DESKTOP, True, marks=pytest.mark.slow),
        pytest.param(PHONE, False, marks=pytest.mark.slow),
        (PHONE, True),
    ],
)
def test_the_page_is_readable(session, visit, width, dark):
    shown = visit(session.url, width=width, dark=dark)
    expect(tiles(shown.page)).to_have_count(24)
    assert shown.overflow() == []
    assert shown.broken_images() == []
    assert shown.low_contrast() == []
    assert (ground(shown.screenshot()) < 90) == dark


def test_a_person_labels_everything_by_keyboard_alone(session, visit, inbox):
    page = visit(session.url).page
    images, done = len(list(inbox.iterdir())), 0
    while done < images:
        done += label_batch(page)
        saved(session, done)
        expect(page.locator("#count")).to_contain_text(f"{done} of {images}")
        if done < images:
            expect(tiles(page).first).to_have_attribute("data-status", "open")
    assert all(row["label"] == truth(row["path"]) for row in rows(session))
    expect(page.locator("#empty")).to_contain_text("tlcli finetune")


@pytest.mark.slow
def test_enter_accepts_proposals_but_not_images_that_have_just_appeared(session, visit):
    page = visit(session.url).page
    first = label_batch(page)
    page.keyboard.press("Enter")
    saved(session, first)
    expect(tiles(page).first).to_contain_text("%")
    time.sleep(0.7)
    assert len(rows(session)) == first
    page.keyboard.press("Enter")
    saved(session, 45)
    right = sum(row["label"] == truth(row["path"]) for row in rows(session))
    assert right > 40


def test_mouse_selection_undo_and_none(session, visit):
    page = visit(session.url).page
    tiles(page).nth(1).click()
    tiles(page).nth(4).click(modifiers=["Shift"])
    expect(page.locator("#grid [aria-selected=true]")).to_have_count(4)
    page.locator("#class-list li", has_text="square").get_by_role("button").first.click()
    saved(session, 4)
    assert {row["label"] for row in rows(session)} == {"square"}
    page.get_by_role("button", name="Undo").click()
    saved(session, 0)
    tiles(page).nth(2).click()
    page.keyboard.press("x")
    saved(session, 1)
    assert rows(session)[0]["label"] == ""
    page.keyboard.press("u")
    saved(session, 0)


@pytest.mark.slow
def test_a_frame_selects_images(session, visit):
    page = visit(session.url).page
    first, last = tiles(page).nth(0).bounding_box(), tiles(page).nth(1).bounding_box()
    page.mouse.move(first["x"] + 20, first["y"] + 20)
    page.mouse.down()
    page.mouse.move(last["x"] + 40, last["y"] + 60, steps=8)
    page.mouse.up()
    expect(page.locator("#grid [aria-selected=true]")).to_have_count(2)


@pytest.mark.slow
def test_classes_are_added_renamed_and_merged_on_the_page(visit, inbox, cache, tmp_path):
    with serve_labels(inbox, tmp_path / "labels.csv", cache=cache) as client:
        client.out = tmp_path / "labels.csv"
        shown = visit(client.url)
        page = shown.page
        for name in ("disk", "square"):
            page.get_by_role("textbox", name="Name of a class").fill(name)
            page.keyboard.press("Enter")
        page.get_by_role("button", name="Start labeling").click()
        page.keyboard.press("1")
        saved(client, 1)
        page.locator("#class-list li", has_text="disk").get_by_role("button", name="Edit").click()
        page.get_by_label("Rename to").fill("disc")
        page.keyboard.press("Enter")
        expect(page.locator("#class-list")).to_contain_text("disc")
        assert [row["label"] for row in rows(client)] == ["disc"]
        assert [one["name"] for one in client.get("/api/state")["classes"]] == ["disc", "square"]
        shown.close()  # before the server, whose state it asks for


def test_classes_are_renamed_again_and_again_although_answers_are_lost(session, visit):
    """What the page sends again, because the answer was lost, is not a second step."""
    shown = visit(session.url)
    page, lost = shown.page, []
    expect(tiles(page).first).to_be_visible()
    page.keyboard.press("1")
    saved(session, 1)

    def lose_answer(route):
        lost.append(route.request.url)
        route.fetch()
        route.abort()

    def rename(old, new, *, is_lost):
        if is_lost:
            page.route("**/api/classes", lose_answer, times=1)
        page.locator("#class-list li", has_text=old).get_by_role("button", name="Edit").click()
        page.get_by_label("Rename to").fill(new)
        page.keyboard.press("Enter")
        expect(page.locator("#class-dialog")).to_be_hidden()
        expect(page.locator("#class-list")).to_contain_text(new)
        assert [row["label"] for row in rows(session)] == [new]

    for old, new in (("disc", "circle"), ("circle", "disc"), ("disc", "round")):
        rename(old, new, is_lost=True)
    rename("round", "disc", is_lost=False)
    assert len(lost) == 3
    page.route("**/api/undo", lose_answer, times=1)
    page.keyboard.press("u")
    expect(page.locator("#class-list")).to_contain_text("round")
    expect(page.locator("#saving")).to_have_text("Saved")
    assert [row["label"] for row in rows(session)] == ["round"]
    shown.complaints.clear()  # about the answers that were lost
    shown.close()


@pytest.mark.slow
def test_labels_are_listed_and_changed(session, visit):
    page = visit(session.url).page
    number = label_batch(page)
    saved(session, number)
    page.get_by_role("button", name="Labeled", exact=True).click()
    labeled = page.locator("#labeled-grid [role=option]")
    expect(labeled.first).to_be_visible()
    labeled.first.click()
    page.keyboard.press("3")
    expect(labeled.first).to_have_attribute("data-status", "saved")
    labeled.first.click()
    page.keyboard.press("Delete")
    saved(session, number - 1)


@pytest.mark.slow
def test_a_reload_shows_what_is_left_and_a_second_tab_other_images(session, visit):
    first = visit(session.url, expect_failures=True).page  # a reload aborts the images that are loading
    number = label_batch(first)
    saved(session, number)
    expect(first.locator("#saving")).to_have_text("Saved")
    first.reload()
    expect(first.locator("#count")).to_contain_text(f"{number} of 45")
    expect(tiles(first).first).to_be_visible()
    second = visit(session.url).page
    expect(tiles(second).first).to_be_visible()
    labeled = {row["path"].rpartition("/")[2] for row in rows(session)}
    for page in (first, second):
        shown = {tile.get_attribute("aria-label").rpartition("/")[2] for tile in tiles(page).all()}
        assert not shown & labeled


@pytest.mark.slow
def test_labels_are_sent_again_when_the_drive_comes_back(session, visit, monkeypatch):
    visit = visit(session.url, expect_failures=True)
    page = visit.page
    expect(tiles(page).first).to_be_visible()
    with monkeypatch.context() as patch:
        patch.setattr("tlcli.storage.appended_table.AppendedTable._write", _drive_gone)
        page.keyboard.press("1")
        expect(page.locator("#problem")).to_contain_text("Not saved")
        assert rows(session) == []
    page.get_by_role("button", name="Retry now").click()
    saved(session, 1)
    expect(page.locator("#problem")).to_be_hidden()


def _drive_gone(self, content):
    raise OSError(5, "Input/output error", str(self.path))


@pytest.mark.slow
def test_five_thousand_images_and_three_hundred_classes(visit, cache, tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(5000):
        color = (number % 251, number // 20 % 256, number * 7 % 256)
        Image.new("RGB", (8, 8), color).save(folder / f"{number:05}.png")
    names = tuple(f"class {number:03}" for number in range(300))
    with serve_labels(folder, tmp_path / "labels.csv", cache=cache, classes=names) as client:
        client.give({number: names[number % 300] for number in range(5000)})
        shown = visit(client.url)
        page = shown.page
        page.get_by_role("button", name="Labeled", exact=True).click()
        labeled = page.locator("#labeled-grid [role=option]")
        expect(labeled.first).to_be_visible()
        assert labeled.count() < 500, "the grid is virtual"
        frames = page.evaluate(
            """async () => {
              const pane = document.getElementById("labeled-pane"), times = [];
              let last = performance.now();
              for (let step = 0; step < 60; step++) {
                pane.scrollTop += 400;
                await new Promise(requestAnimationFrame);
                times.push(performance.now() - last);
                last = performance.now();
              }
              return times.sort((a, b) => a - b)[54];
            }"""
        )
        assert frames < 250, "nine of ten frames, on a machine that may be busy"
        assert labeled.count() < 500
        shown.close()
