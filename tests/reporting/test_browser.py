"""The page in a real browser: headless Chromium opens the file as a person would."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from hep2flow.reporting.page import write

from .content import make_content
from .sweep import make_sweep

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# As root in a container, and without the calls home that a closed network answers one by one.
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
QUIET += ["--disable-component-update", "--disable-sync"]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: apt-get install chromium)")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write(replace(make_content(synthetic=True), sweeps=[make_sweep()]), folder)
    return folder / "index.html"


class Visit:
    """An open page, and what it asked for and complained of."""

    def __init__(self, browser: Browser, file: Path, width: int, **options: Any) -> None:
        self.page: Page = browser.new_page(viewport={"width": width, "height": 900}, **options)
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(file.as_uri())


@pytest.mark.parametrize("width", [360, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_without_a_request_a_complaint_or_an_overflow(
    browser: Browser, report: Path, width: int, scheme: str
) -> None:
    visit = Visit(browser, report, width, color_scheme=scheme)
    assert visit.requests == [report.as_uri()]
    for details in visit.page.locator("details").all():
        details.evaluate("element => element.open = true")
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
    assert visit.complaints == []
    visit.page.close()


def test_tables_sort_by_click_and_by_keyboard(browser: Browser, report: Path) -> None:
    page = Visit(browser, report, 1440).page
    for details in page.locator("details").all():
        details.evaluate("element => element.open = true")
    table = page.locator("table.sortable[aria-label^='Accuracy by specimen']")
    heading = table.locator("thead th.number button").nth(1)
    cells = table.locator("tbody tr td:nth-of-type(3)")  # a row's heading is no td

    def values() -> list[float]:
        return [float(text) for text in cells.all_inner_texts()]

    before = values()
    heading.click()
    assert values() == sorted(before, reverse=True)
    assert heading.evaluate("button => button.parentElement.ariaSort") == "descending"
    heading.focus()
    page.keyboard.press("Enter")
    assert values() == sorted(before)
    page.close()


def test_every_link_of_the_contents_leads_somewhere(browser: Browser, report: Path) -> None:
    page = Visit(browser, report, 1440).page
    targets = page.locator("nav a").evaluate_all("links => links.map(link => link.getAttribute('href'))")
    assert len(targets) > 5
    assert all(page.locator(target).count() == 1 for target in targets)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.close()


def test_a_reservation_is_seen_without_scrolling(browser: Browser, tmp_path: Path) -> None:
    write(make_content(selected_on_test=True, paper_model=True, profile="paper"), tmp_path)
    for width in (360, 1440):
        page = Visit(browser, tmp_path / "index.html", width).page
        warning = page.get_by_text("selected on the test set: optimistic, not a test result").first
        box = warning.bounding_box()
        assert box is not None
        assert box["y"] + box["height"] < 900
        page.close()


def test_paper_shows_what_the_screen_folds_away(browser: Browser, report: Path) -> None:
    page = Visit(browser, report, 1440).page
    closed = page.locator("details:not([open])").count()
    assert closed > 0
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details:not([open])").count() == closed
    page.close()
