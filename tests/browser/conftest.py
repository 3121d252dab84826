"""Pages in a real browser: headless Chromium, driven by Playwright."""

import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def chromium():
    """One browser for all tests of a process."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    assert found, "no Chromium on PATH; install it, or leave these tests out with -m 'not browser'"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


@dataclass
class Visit:
    """A page that was opened, and what it said and asked for since.

    Attributes:
        page: Playwright's.
        complaints: errors and warnings of the console, and uncaught exceptions.
        requests: addresses that were asked for, the page's own first.
    """

    page: Page
    complaints: list = field(default_factory=list)
    requests: list = field(default_factory=list)

    def violations(self):
        """Rules of accessibility (axe-core's) that the page breaks, in words."""
        found = Axe().run(self.page).response["violations"]
        return [
            f"{rule['id']}: {rule['help']} ({node['html'][:200]})"
            for rule in found
            for node in rule["nodes"]
        ]

    def becomes(self, expression, seconds=30):
        """Whether a JavaScript expression becomes true; Playwright's own wait needs eval for it,
        which pages of ours forbid."""
        end = time.monotonic() + seconds
        while not self.page.evaluate(expression):
            if time.monotonic() > end:
                return False
            self.page.wait_for_timeout(20)
        return True

    def overflows(self):
        """Whether the page is wider than its window, so that people must scroll sideways."""
        return self.page.evaluate(
            "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        )


@pytest.fixture
def visit(chromium):
    """Function that opens an address: ``visit(url, width=360, scheme="dark")`` is a ``Visit``."""
    contexts = []

    def open_page(url, width=1280, height=900, scheme="light", **options):
        context = chromium.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, **options
        )
        contexts.append(context)
        opened = Visit(context.new_page())
        opened.page.on("request", lambda request: opened.requests.append(request.url))
        opened.page.on("pageerror", lambda error: opened.complaints.append(str(error)))
        opened.page.on(
            "console",
            lambda message: opened.complaints.append(message.text)
            if message.type in ("error", "warning")
            else None,
        )
        opened.page.goto(url)
        return opened

    yield open_page
    for context in contexts:
        context.close()
