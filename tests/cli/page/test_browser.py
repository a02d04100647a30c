"""The page in a real browser: what a radiologist does with it, by mouse and by keyboard, in light and dark."""

from __future__ import annotations

import base64
import io
import shutil
import time

import pytest
from PIL import Image, ImageStat

from tests.page_server import catalog_of, grey_dicom, serving

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium (apt-get install chromium)")
AA = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
# What is dropped is put into the event as the browser would do it.
DROP = """([content, name]) => {
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name));
  for (const kind of ["dragenter", "dragover", "drop"])
    document.getElementById("drop").dispatchEvent(
      new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true }));
}"""
FOCUSED = """() => {
  const one = document.activeElement, style = getComputedStyle(one.closest(".drop") || one);
  const name = one.id || one.name || one.dataset.column || one.className;
  return [name, one.matches(":focus-visible") && style.outlineStyle !== "none"];
}"""


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (the extra dev)")
    with playwright.sync_playwright() as driver:
        # A container's root may not sandbox; the page under test is our own.
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def shown(project):
    with serving(catalog_of(project)) as found:
        yield found


@pytest.fixture
def page(browser, shown):
    """The opened page; that it said nothing on the console and asked nobody else is checked afterwards."""
    context = browser.new_context(viewport={"width": 1280, "height": 860}, accept_downloads=True)
    opened = context.new_page()
    said, asked = [], []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    opened.set_default_timeout(20_000)
    opened.goto(f"http://127.0.0.1:{shown.port}/?token={shown.door.token}")
    opened.wait_for_selector("#found .case")
    opened.said = said
    yield opened
    context.close()
    assert said == []
    assert len(asked) > 10
    own = f"http://127.0.0.1:{shown.port}/"
    assert [url for url in asked if not url.startswith((own, f"blob:{own[:-1]}"))] == []


def until(page, expression):
    """Wait until an expression is true; playwright's own wait needs eval, which the page's policy forbids."""
    began = time.monotonic()
    while not page.evaluate(expression):
        assert time.monotonic() - began < 20, expression
        page.wait_for_timeout(20)


def violations(page):
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page, options={"runOnly": {"type": "tag", "values": [*AA, "best-practice"]}})
    return [
        (rule["id"], node["target"], node["failureSummary"])
        for rule in found.response["violations"]
        for node in rule["nodes"]
    ]


def drop(page, content):
    page.evaluate(DROP, [base64.b64encode(content).decode(), "Secret^Name.png"])
    page.wait_for_selector("#answer:not([hidden]) .target")
    until(page, "document.getElementById('query-title').textContent.startsWith('What you sent')")


def brightness(canvas):
    return ImageStat.Stat(Image.open(io.BytesIO(canvas.screenshot())).convert("L")).mean[0]


def rows_of(page):
    return page.eval_on_selector_all(
        "#found .case img", "all => all.map((one) => Number(one.src.split('/').at(-2)))"
    )


def test_an_image_is_dropped_answered_filtered_and_gone_on_from(page, shown, picture):
    posted = []
    page.on(
        "request",
        lambda request: posted.append(request.post_data_buffer or b"") if request.method == "POST" else None,
    )
    drop(page, picture)
    assert not any(b"Secret" in body for body in posted)
    answer = page.inner_text("#answer")
    assert "Of 100 studies with this answer, about" in answer
    assert "At 90 %" in answer
    assert "abnormal" in answer
    until(page, "document.querySelectorAll('#found .case').length === 12")
    assert (
        page.locator("#found .case .shot").first.evaluate(
            "image => image.decode().then(() => image.naturalWidth)"
        )
        == 192
    )
    # A filter holds for what was sent, and every case that is left says so.
    page.select_option("#filters select[data-column=anatomy]", "XR_HAND")
    until(
        page,
        "[...document.querySelectorAll('#found .case')].every((one) => one.innerText.includes('XR_HAND'))",
    )
    page.select_option("#filters select[data-column=anatomy]", "")
    until(
        page,
        "[...document.querySelectorAll('#found .case')].some((one) => !one.innerText.includes('XR_HAND'))",
    )
    first = rows_of(page)
    # A click searches from the case, which is then not among those that are found; Back returns.
    page.click("#found li:nth-child(3) .case")
    until(page, f"location.hash === '#mura/row-{first[2]}'")
    assert page.inner_text("#query-title") == "Asked: an image of the store"
    assert first[2] not in rows_of(page)
    assert "patient" in page.inner_text("#query-facts")
    page.go_back()
    until(page, f"document.querySelector('#found .case img').src.includes('/rows/{first[0]}/')")
    assert violations(page) == []


def test_back_returns_to_what_was_shown_with_its_answer_its_run_and_its_view(page, picture):
    drop(page, picture)
    answer, cases = page.inner_text("#answer"), rows_of(page)
    page.click("#found li:nth-child(2) .case")
    until(page, "location.hash.includes('/row-')")
    assert page.is_hidden("#answer")
    page.click("#to-map")
    until(page, "document.getElementById('stage').dataset.frameMs")
    page.go_back()
    until(page, "!document.getElementById('cases-view').hidden && location.hash.includes('/row-')")
    page.go_back()
    page.wait_for_selector("#answer:not([hidden])")
    until(page, "document.getElementById('query-title').textContent === 'What you sent'")
    until(page, f"document.querySelector('#found .case img').src.includes('/rows/{cases[0]}/')")
    assert (page.inner_text("#answer"), rows_of(page)) == (answer, cases)
    # An answer is a run's. With none there are cases and no answer, and Back has the answer again.
    page.select_option("#run", "")
    until(page, "document.getElementById('answer').hidden")
    until(page, "document.querySelectorAll('#found .case').length === 12")
    assert page.locator("#found .said").count() == 0
    page.go_back()
    page.wait_for_selector("#answer:not([hidden])")
    until(page, "document.querySelectorAll('#found .said').length > 0")
    assert page.input_value("#run") == "abnormal-knn"


def test_a_page_that_is_loaded_anew_shows_what_it_showed(page):
    page.click("#found li:nth-child(2) .case")
    until(page, "location.hash.includes('/row-')")
    before = page.evaluate("location.hash"), page.inner_text("#query-facts"), rows_of(page)
    page.reload()
    page.wait_for_selector("#found .case")
    until(page, "document.querySelector('#query-facts dd')")
    assert (page.evaluate("location.hash"), page.inner_text("#query-facts"), rows_of(page)) == before


def test_a_condition_that_nothing_meets_says_why(page):
    page.fill("#filters input[name=where]", "anatomy=XR_TOE")
    page.press("#filters input[name=where]", "Enter")
    until(page, "document.getElementById('found-count').textContent.includes('leaves none')")
    page.fill("#filters input[name=where]", "nothing=1")
    page.press("#filters input[name=where]", "Enter")
    page.wait_for_selector("#error:not([hidden])")
    assert "has no column 'nothing'" in page.inner_text("#error")
    # The browser notes the refusal on its console, too: once, for it was asked once.
    assert [line.rpartition(" (")[0] for line in page.said] == [
        "Failed to load resource: the server responded with a status of 400"
    ]
    page.said.clear()


def test_a_dicom_file_gets_a_window(page):
    drop(page, grey_dicom())
    canvas = page.wait_for_selector("#viewer canvas")
    assert page.inner_text("#viewer output >> nth=0") == "1500"
    assert page.inner_text("#viewer output >> nth=1") == "1000"
    before = brightness(canvas)
    level = page.locator("#viewer input[type=range]").first
    level.focus()
    for _ in range(40):
        page.keyboard.press("ArrowLeft")
    assert brightness(canvas) > before + 2  # a lower level is a brighter picture
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 60, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 160, box["y"] + 60)
    page.mouse.up()
    assert int(page.inner_text("#viewer output >> nth=1")) > 1200  # dragged across: a wider window
    page.click("text=Reset window")
    assert brightness(canvas) == before
    assert violations(page) == []


def test_the_map_is_hovered_clicked_and_lassoed(page, tmp_path):
    page.click("#to-map")
    page.wait_for_selector("#legend li")
    until(page, "document.getElementById('stage').dataset.frameMs")
    names = page.inner_text("#colour")
    assert {"abnormal", "split", "anatomy", "probability of abnormal: abnormal", "error: abnormal"} <= set(
        names.split("\n")
    )
    page.select_option("#colour", label="probability of abnormal: abnormal")
    page.wait_for_selector("#legend .ramp")
    page.select_option("#colour", label="anatomy")
    page.wait_for_selector("#legend button")
    assert violations(page) == []
    stage = page.locator("#over").bounding_box()
    middle = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2
    # A line around everything selects everything, which a file then lists.
    page.click("#lasso")
    page.mouse.move(stage["x"] + 4, stage["y"] + 4)
    page.mouse.down()
    for x, y in (
        (stage["width"] - 4, 4),
        (stage["width"] - 4, stage["height"] - 4),
        (4, stage["height"] - 4),
    ):
        page.mouse.move(stage["x"] + x, stage["y"] + y, steps=4)
    page.mouse.up()
    page.wait_for_selector("#chosen .case")
    points = page.evaluate("document.querySelectorAll('#chosen .case').length")
    assert points == 60
    with page.expect_download() as download:
        page.click("#export")
    lines = (
        (tmp_path / "selected.csv", download.value.save_as(tmp_path / "selected.csv"))[0]
        .read_text()
        .splitlines()
    )
    assert lines[0] == "row,image_id,study_id"
    assert f"{len(lines) - 1} images" in page.inner_text("#chosen-count")
    assert page.inner_text("#store").startswith(f"mura ({len(lines) - 1})")
    # A click on a point searches from it.
    page.keyboard.press("Escape")
    page.click("#clear")
    for dx in range(-300, 300, 12):
        page.mouse.move(middle[0] + dx, middle[1] + dx / 3)
        if page.is_visible("#tip"):
            break
    assert page.is_visible("#tip")
    page.mouse.down()
    page.mouse.up()
    until(page, "location.hash.includes('/row-')")
    assert page.is_visible("#cases-view")


def test_the_keyboard_alone_reaches_everything(page):
    """Tab to the map, arrows to an image, S to select around it, Enter to search from it."""
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the cases"
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        found = page.evaluate(FOCUSED)
        if found[0] == "case":
            break
        reached.append(found)
    assert {"store", "run", "to-cases", "to-map", "to-runs", "file", "where", "k", "split", "anatomy"} <= {
        name for name, _ in reached
    }
    assert [name for name, visible in reached if not visible] == []
    page.keyboard.press("Enter")
    until(page, "location.hash.includes('/row-')")
    # The case is gone; the next Tab reaches the first of those that came.
    until(page, "document.activeElement.id === 'found'")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement === document.querySelector('#found .case')")
    page.focus("#to-map")
    page.keyboard.press("Enter")
    until(page, "document.getElementById('stage').dataset.frameMs")
    page.focus("#over")
    before = page.evaluate("location.hash")
    for key in ("ArrowRight", "ArrowRight", "ArrowUp", "+", "s"):
        page.keyboard.press(key)
    page.wait_for_selector("#chosen .case")
    assert page.inner_text("#chosen-count") == "50 images"
    page.keyboard.press("Enter")
    until(page, f"location.hash.includes('/row-') && location.hash !== '{before}'")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_narrow_screen_in_light_and_dark(page, picture, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 360, "height": 740})
    drop(page, picture)
    for view in ("cases", "map", "runs", "audit"):
        page.click(f"#to-{view}")
        page.wait_for_selector(f"#{view}-view:not([hidden]) h2")
        if view == "map":
            until(page, "document.getElementById('stage').dataset.frameMs")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, view
        # The other views were looked at in light by the tests above.
        assert (scheme, view) in {("light", "cases"), ("light", "map")} or violations(page) == [], (
            scheme,
            view,
        )
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) > 380) == (scheme == "light")
