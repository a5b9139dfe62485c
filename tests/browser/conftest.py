"""A real browser, and pages in it that may not complain, nor ask anybody else for anything."""

import os
import shutil
from typing import Any, Callable, Iterator, List
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# on a machine that is busy
expect.set_options(timeout=20_000)

NAMES = ("chromium", "chromium-browser", "google-chrome")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Here, and not in the fixture, so that all tests are skipped in one place, and pytest says so in one line."""
    if "browser" in getattr(item, "fixturenames", ()) and not any(map(shutil.which, NAMES)):
        reason = "Chromium is not installed: the pages are not tested (on Debian: apt-get install chromium)"
        # nobody reads there that something was skipped
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = next(filter(None, map(shutil.which, NAMES)))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def complaints() -> List[str]:
    """Of the pages: errors, broken policies, requests to others. A test that expects some takes them out."""
    return []


@pytest.fixture
def new_page(browser: Browser, complaints: List[str]) -> Iterator[Callable[..., Page]]:
    """Makes pages, in a window of their own each; takes playwright's options of one."""
    contexts = []

    def asks(request: Any, page: Page) -> None:
        ours, theirs = urlsplit(page.url), urlsplit(request.url)
        # the first request of a page is the page
        if not request.is_navigation_request() and (theirs.scheme, theirs.netloc) != (ours.scheme, ours.netloc):
            complaints.append(f"{page.url} asked for {request.url}")

    def make(**options: Any) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 700}, "locale": "en-GB", **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        # a policy that is broken is told in the console
        page.on("console", lambda it: complaints.append(it.text) if it.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asks(request, page))
        return page

    yield make
    for context in contexts:
        context.close()
    assert not complaints


@pytest.fixture
def page(new_page: Callable[..., Page]) -> Page:
    return new_page()
