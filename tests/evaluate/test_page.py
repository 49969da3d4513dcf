"""The report in a real browser: from file://, without network, with mouse and keyboard."""

import shutil

import numpy as np
import pytest
import tifffile
from playwright.sync_api import expect

from emsr_fast.evaluate.job import evaluate
from emsr_fast.pictures import degrade

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    from pathlib import Path

    folder = tmp_path_factory.mktemp("report")
    stack = tifffile.imread(Path(__file__).parents[2] / "examples" / "data" / "flyem_fibsem_10nm_48x192x192.tif")[:4]
    # a name that must not become markup
    paths = {name: folder / f"{name} <b>&'.tif" for name in ("sr", "reference", "second_scan", "lr")}
    sharp = np.clip(1.5 * stack[:3].astype(float) - 60, 0, 255).astype(np.uint8)
    for name, pixels in (("sr", sharp), ("reference", stack[:3]), ("second_scan", stack[1:]),
                         ("lr", degrade(stack[:3], 3))):  # fmt: skip
        tifffile.imwrite(paths[name], pixels, photometric="minisblack", metadata={"axes": "ZYX"})
    evaluate(output=folder / "report", pixel_nm=10.0, **paths)
    return folder / "report" / "report.html"


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no chromium; apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as player:
        # containers give no user namespaces to a root user
        running = player.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def opened(browser, report):
    """The page, opened from its file with the network off; what it complains of and asks for is an error."""
    context = browser.new_context(offline=True, viewport={"width": 1400, "height": 900})
    page, complaints, requests = context.new_page(), [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(report.as_uri())
    yield page
    assert not complaints
    assert all(url.startswith(("file://", "data:")) for url in requests)
    assert sum(url.startswith("file://") for url in requests) == 1
    context.close()


def transforms(page):
    return page.eval_on_selector_all(".view img", "images => images.map(image => image.style.transform)")


def test_every_image_is_shown(opened):
    titles = opened.eval_on_selector_all(
        ".row:not([hidden]) figcaption", "all => all.map(one => one.firstChild.textContent)"
    )
    assert titles == [
        *("LR, pixels repeated", "bicubic of LR", "SR", "reference", "second scan", "SR less reference"),
    ]
    decoded = opened.eval_on_selector_all(
        ".view img", "images => images.map(i => [i.complete, i.naturalWidth, i.naturalHeight, i.alt.length > 9])"
    )
    assert len(decoded) == 18
    sizes = [tuple(one[1:3]) for one in decoded]
    assert sizes == [(64, 64), *[(192, 192)] * 5] * 3
    assert all(one[0] and one[3] for one in decoded)
    # what reaches the screen is neither blank nor the same everywhere
    for view in opened.locator(".row:not([hidden]) .view").all():
        box = view.bounding_box()
        assert box["width"] > 200
        assert box["width"] == pytest.approx(box["height"], abs=1)
        from io import BytesIO

        from PIL import Image

        shown = np.asarray(Image.open(BytesIO(view.screenshot())).convert("L"))
        assert shown.std() > 10


def test_lr_and_sr_show_the_same_place_in_the_same_grey(opened):
    pixels = opened.evaluate(
        """() => [...document.querySelectorAll('.row:not([hidden]) .view img')].map(image => {
            const canvas = document.createElement('canvas');
            [canvas.width, canvas.height] = [192, 192];
            const pen = canvas.getContext('2d');
            pen.imageSmoothingEnabled = false;
            pen.drawImage(image, 0, 0, 192, 192);
            return [...pen.getImageData(0, 0, 192, 192).data].filter((_, index) => index % 4 === 0);
        })"""
    )
    lr, bicubic, sr, reference, second, difference = (np.array(one, float).reshape(192, 192) for one in pixels)
    for image in (lr, bicubic, sr):
        assert np.corrcoef(image.ravel(), reference.ravel())[0, 1] > 0.9
        assert np.abs(image.mean() - reference.mean()) < 2
    assert np.corrcoef(second.ravel(), reference.ravel())[0, 1] > 0.8
    # middle grey where they agree
    assert difference.mean() == pytest.approx(127.5, abs=4)


def test_all_images_of_a_place_move_together(opened):
    first = opened.locator(".row:not([hidden]) .view").first
    # the mouse reaches what is on the screen only
    first.scroll_into_view_if_needed()
    start = transforms(opened)
    assert set(start) == {"scale(1) translate(0%, 0%)"}
    box = first.bounding_box()
    opened.mouse.move(box["x"] + box["width"], box["y"] + box["height"])
    opened.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 0.25 * box["height"])
    opened.mouse.wheel(0, -600)
    expect(opened.locator("#viewer output")).not_to_have_text("1.0x")
    zoomed = transforms(opened)
    assert len(set(zoomed)) == 1
    assert zoomed != start
    opened.mouse.down()
    opened.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
    opened.mouse.up()
    assert len(set(transforms(opened))) == 1
    assert transforms(opened) != zoomed
    opened.get_by_role("button", name="whole image").click()
    assert transforms(opened) == start


def test_the_keyboard_does_what_the_mouse_does(opened):
    # to the choice of the place, over the buttons, to the first image
    for expected in ("SELECT", "BUTTON", "BUTTON", "BUTTON", "DIV"):
        opened.keyboard.press("Tab")
        assert opened.evaluate("document.activeElement.tagName") == expected
    for _ in range(3):
        opened.keyboard.press("+")
    assert opened.locator("#viewer output").text_content() == "3.4x"
    before = transforms(opened)
    opened.keyboard.press("ArrowRight")
    opened.keyboard.press("ArrowDown")
    assert transforms(opened) != before
    for _ in range(30):
        opened.keyboard.press("ArrowRight")
    # never beyond the image
    (place,) = set(transforms(opened))
    assert float(place.split("translate(")[1].split("%")[0]) == pytest.approx(-100 * (1 - 1 / 1.5**3), abs=0.01)
    opened.keyboard.press("0")
    assert set(transforms(opened)) == {"scale(1) translate(0%, 0%)"}


def test_another_place_is_shown_by_choice(opened):
    assert opened.locator(".row:not([hidden])").count() == 1
    choice = opened.get_by_label("Place")
    assert [text.split("(")[1] for text in choice.locator("option").all_inner_texts()] == [
        *("lowest PSNR)", "median PSNR)", "highest PSNR)"),
    ]
    choice.select_option(index=2)
    assert opened.locator(".row:not([hidden])").get_attribute("data-row") == "2"


def test_curves_tables_and_words_are_there(opened):
    charts = opened.locator("figure.chart svg[role=img]")
    assert charts.count() >= 5
    for number in range(charts.count()):
        assert charts.nth(number).locator("polyline, circle").count() > 0
        box = charts.nth(number).bounding_box()
        assert box["width"] > 300
    # no mark outside its chart
    assert opened.evaluate(
        """() => [...document.querySelectorAll('.chart svg')].every(svg => {
            const frame = svg.getBoundingClientRect();
            return [...svg.querySelectorAll('polyline, circle')].every(mark => {
                const box = mark.getBoundingClientRect();
                return box.left >= frame.left - 2 && box.right <= frame.right + 2
                    && box.top >= frame.top - 2 && box.bottom <= frame.bottom + 2;
            });
        })"""
    )
    assert opened.title() == "Evaluation of sr <b>&'.tif"
    assert opened.locator("h1 b").count() == 0
    for heading in ("What was measured", "What was found", "What this cannot tell"):
        assert opened.get_by_role("heading", name=heading).is_visible()
    rows = opened.locator("section").filter(has_text="Slice by slice").locator("tbody tr")
    assert rows.count() == 12


def test_without_script_all_places_are_shown(browser, report):
    context = browser.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    page.goto(report.as_uri())
    assert page.locator(".row").count() == 3
    for number in range(3):
        assert page.locator(".row").nth(number).is_visible()
    assert not page.locator(".tools").is_visible()
    context.close()
