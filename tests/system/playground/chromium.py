"""A real Chromium, and what a page in it complains of."""

import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from genrec.recommender import Recommender
from service.app import create_app
from tests.service.fakes import FakeRecommender, some_settings

NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium_path() -> str:
    """Where the browser is. Without one the test is skipped, but never in CI."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found:
        return found
    if os.environ.get("CI"):
        pytest.fail("there is no chromium, and in CI the playground is driven by one; make tools installs it.")
    pytest.skip("there is no chromium; make tools installs it")


@contextmanager
def launched() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Visit:
    """A page in a context of its own.

    Attributes:
        complaints: errors and warnings of its console, and errors that no script caught.
        expected: HTTP statuses that the browser may complain of.
    """

    context: BrowserContext
    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)
    expected: set[str] = field(default_factory=set)

    def open(self, path: str = "ui/") -> Page:
        self.page.goto(f"{self.url}/{path}")
        return self.page

    def hear(self, message: ConsoleMessage) -> None:
        text = message.text
        if message.type not in ("error", "warning") or any(status in text for status in self.expected):
            return
        self.complaints.append(text)


@contextmanager
def visiting(browser: Browser, url: str, **context: Any) -> Iterator[Visit]:
    """A fresh visitor. Whatever the page complains of and the test did not expect fails it."""
    opened = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **context})
    opened.set_default_timeout(8_000)
    visit = Visit(opened, opened.new_page(), url)
    visit.page.on("console", visit.hear)
    visit.page.on("pageerror", lambda error: visit.complaints.append(f"uncaught: {error}"))
    visit.page.on("dialog", lambda dialog: visit.complaints.append(f"dialog: {dialog.message}"))
    yield visit
    opened.close()
    assert not visit.complaints


@contextmanager
def gated(load: Callable[..., object] | None = None, **settings: Any) -> Iterator[tuple[str, FakeRecommender]]:
    """The real service on a real socket, in a thread, around a model that can be told to wait.

    Gives its address and the model.
    """
    recommender = FakeRecommender()
    loader = load or (lambda *_, **__: recommender)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        app = create_app(some_settings(**settings), cast("Callable[..., Recommender]", loader), lambda code: None)
        server = uvicorn.Server(uvicorn.Config(app, lifespan="on", log_config=None, timeout_graceful_shutdown=2))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", recommender
        finally:
            recommender.gate.set()
            server.should_exit = True
            thread.join(10)
