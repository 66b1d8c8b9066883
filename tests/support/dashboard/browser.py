"""Debian's Chromium, driven by Playwright, with a record of all errors and requests of a page."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from support.machine_parts import BROWSERS, program


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program(*BROWSERS), args=["--no-sandbox"]
        )
        try:
            yield browser
        finally:
            browser.close()


class Watched:
    """Page with its console messages and its requests.

    Attributes:
        complaints: errors, warnings and refusals in the console, and exceptions.
        asked: the addresses of its requests.
    """

    def __init__(
        self, browser: Browser, width: int = 1280, scheme: Any = "light", forced: Any = "none"
    ) -> None:
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, forced_colors=forced
        )
        self.context.set_default_timeout(60_000)
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))

    def open(self, address: str) -> Page:
        """Open a page of the dashboard, and wait until its first chart is drawn."""
        self.page.goto(address)
        self.page.locator("figure.chart canvas").first.wait_for()
        return self.page

    def settle(self) -> None:
        """Wait until the page has finished all computations for the user's input."""
        self.page.wait_for_function("() => !document.querySelector('[aria-busy=true]')")

    def violations(self) -> list[tuple[str, list[str]]]:
        """Return the findings of axe: the rule, and the elements."""
        found = Axe().run(self.page).response["violations"]
        return [(one["id"], [node["html"][:200] for node in one["nodes"][:5]]) for one in found]

    def is_wider_than_the_screen(self) -> bool:
        return bool(
            self.page.evaluate(
                "document.documentElement.scrollWidth > document.documentElement.clientWidth"
            )
        )

    def close(self) -> None:
        self.context.close()
