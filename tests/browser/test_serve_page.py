"""The pages of `tlcli serve` in a browser: images that are chosen, dropped, pasted, or photographed."""

from __future__ import annotations

import base64

import pytest
from playwright.sync_api import expect
from served_runs import serve_run
from visits import DESKTOP, PHONE, ground, installed_browser

DROP = """([name, content, event]) => {
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], name, { type: "image/jpeg" }));
  if (event === "drop") document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true }));
  else document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true }));
}"""


@pytest.fixture(scope="module")
def client(trained):
    with serve_run(trained.run) as opened:
        yield opened


@pytest.fixture
def files(photos):
    return [str(photos / name / "02.jpg") for name in ("disc", "square", "stripes")]


def cards(page):
    return page.locator("#results > li")


def finished(page, number):
    expect(cards(page)).to_have_count(number)
    expect(page.locator("#results [aria-busy]")).to_have_count(0, timeout=30_000)


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_is_readable(client, visit, files, width, dark):
    shown = visit(client.url, width=width, dark=dark)
    page = shown.page
    expect(page.get_by_role("heading", level=1)).to_have_text("run")
    page.set_input_files("#files", files)
    finished(page, 3)
    assert shown.overflow() == []
    assert shown.low_contrast() == []
    assert (ground(shown.screenshot()) < 60) == dark


def test_a_card_has_the_row_of_the_interface(client, visit, files, photos):
    page = visit(client.url).page
    page.set_input_files("#files", files)
    finished(page, 3)
    row = client.predict((photos / "disc" / "02.jpg").read_bytes(), "?top=3")[1]["predictions"][0]
    card = cards(page).last  # the first that was chosen; the latest is on top
    expect(card.locator(".label")).to_have_text(row["label"])
    assert card.locator("dt").all_text_contents() == [row["label"], row["label_2"], row["label_3"]]
    assert card.locator("dd:not(.bar)").first.text_content().startswith(f"{min(99, round(100 * row['confidence']))} %")
    bars = card.locator(".bar i").evaluate_all("all => all.map((bar) => bar.getBoundingClientRect().width)")
    assert bars == sorted(bars, reverse=True)
    assert bars[0] > 0
    assert card.locator("canvas").evaluate("canvas => canvas.width") == 320


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_images_are_dropped_and_pasted(client, visit, photos, event):
    page = visit(client.url).page
    content = base64.b64encode((photos / "square" / "02.jpg").read_bytes()).decode()
    page.evaluate(DROP, ["<b>one</b>.jpg", content, event])
    finished(page, 1)
    expect(cards(page).locator(".name")).to_have_text("<b>one</b>.jpg")
    expect(cards(page).locator("dt")).to_have_count(3)


def test_an_unreadable_image_says_why(client, visit, tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"PK\x03\x04" + bytes(30))
    page = visit(client.url, expect_failures=True).page
    page.set_input_files("#files", str(tmp_path / "x.jpg"))
    finished(page, 1)
    expect(cards(page)).to_contain_text("Cannot be used")
    expect(cards(page)).to_contain_text("ZIP")
    expect(page.get_by_role("status")).to_contain_text("ZIP")


def test_the_page_is_used_with_the_keyboard(client, visit, files):
    page = visit(client.url).page
    expect(page.get_by_role("heading", level=1)).to_have_text("run")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="API documentation")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Choose images")).to_be_focused()
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(files)
    finished(page, 3)
    expect(page.get_by_role("status")).to_contain_text("02.jpg: ")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Take a photo")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(cards(page)).to_have_count(0)
    expect(page.get_by_role("button", name="Choose images")).to_be_focused()


def test_a_photo_is_taken_with_the_camera(client, browser):
    arguments = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    other = browser.browser_type.launch(executable_path=installed_browser(), args=arguments)
    page = other.new_page()
    page.goto(client.url)
    page.get_by_role("button", name="Take a photo").click()
    shoot = page.get_by_role("button", name="Take photo", exact=True)
    expect(shoot).to_be_focused()
    shoot.click()
    finished(page, 1)
    expect(cards(page).locator("dt")).to_have_count(3)
    expect(page.get_by_role("dialog")).to_have_count(0)
    other.close()


def test_without_a_camera_the_dialog_says_so(client, visit):
    page = visit(client.url).page
    page.get_by_role("button", name="Take a photo").click()
    expect(page.get_by_role("alert")).to_be_visible()
    page.get_by_role("button", name="Close").click()
    expect(page.get_by_role("dialog")).to_have_count(0)


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_the_documentation_lists_parameters_and_keys(client, visit, width):
    shown = visit(client.url, width=width, dark=True)
    shown.page.get_by_role("link", name="API documentation").click()
    expect(shown.page.get_by_role("cell", name="target_precision", exact=True)).to_be_visible()
    expect(shown.page.get_by_role("cell", name="novelty", exact=True)).to_be_visible()
    expect(shown.page.locator("pre").first).to_contain_text(f"http://{client.host}:{client.port}/v1/predict")
    assert shown.overflow() == []
    assert shown.low_contrast() == []
