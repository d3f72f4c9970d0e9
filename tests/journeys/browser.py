"""A person in front of Debian's Chromium, for tests that click through the pages."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.factories import PASSWORD

ARGUMENTS = [
    "--no-sandbox",  # it is root's in a container
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
TIMEOUT_MS = 30_000  # beside another process of tests a page takes its time


@contextmanager
def chromium() -> Iterator[Browser]:
    """Skips the test without one, unless the environment says that it must be there."""
    path = shutil.which("chromium")
    if path is None:
        if os.environ.get("REQUIRE_SERVICES") == "1":
            pytest.fail("there is no chromium, and REQUIRE_SERVICES is set")
        pytest.skip("there is no chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


class Person:
    """Somebody with a browser session of their own; whatever it complains of is remembered."""

    def __init__(self, browser: Browser, site: str) -> None:
        self.site = site
        self.complaints: list[str] = []
        context = browser.new_context(viewport={"width": 1440, "height": 900})
        context.set_default_timeout(TIMEOUT_MS)
        self.page: Page = context.new_page()
        # A violation of the content security policy is an error in the console, too.
        self.page.on("console", lambda line: self._hear(line.type == "error", line.text))
        self.page.on("pageerror", lambda error: self._hear(True, str(error)))
        self.page.on(
            "response",
            lambda answer: self._hear(answer.status >= 500, f"{answer.status} {answer.url}"),
        )

    def _hear(self, is_complaint: bool, text: str) -> None:
        if is_complaint:
            self.complaints.append(f"{self.page.url}: {text}")

    def open(self, path: str) -> None:
        self.page.goto(f"{self.site}{path}")

    def log_in(self, username: str) -> None:
        self.open("/login/")
        self.page.get_by_label("Username").fill(username)
        self.page.get_by_label("Password").fill(PASSWORD)
        self.press("Log in")

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def follow(self, name: str) -> None:
        self.page.get_by_role("link", name=name, exact=True).first.click()

    def go_to(self, name: str) -> None:
        """To a page that the bar on top leads to."""
        self.page.get_by_role("navigation", name="Main").get_by_role("link", name=name).click()

    def sees(self, text: str) -> None:
        self.page.get_by_text(text).first.wait_for()
