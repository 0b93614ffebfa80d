"""The pictures of the playground in docs/images/, made of a bundle that is served here for the purpose.

    python scripts/screenshots.py [BUNDLE]

The demo bundle by default. Needs a Chromium on the PATH (`make tools`).
"""

import io
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Literal, cast

import httpx
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
MAX_BYTES = 250_000
SCALE = 1.5
TRAFFIC_S = 62
HISTORY = "h=50&h=181&h=172&beams=12"  # Star Wars, Return of the Jedi, The Empire Strikes Back
Scheme = Literal["light", "dark"]
FILTERED = HISTORY + "&where=%7B%22year%22%3A%7B%22gte%22%3A1990%7D%7D"


def main() -> None:
    """Serve, look, save."""
    bundle = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "bundles" / "demo"
    IMAGES.mkdir(exist_ok=True)
    with serving(bundle) as url, sync_playwright() as playwright:
        path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        playground(browser, url, "light", HISTORY, "playground.png")
        playground(browser, url, "dark", FILTERED, "playground-dark.png")
        tree(browser, url)
        narrow(browser, url)
        status(browser, url)
        browser.close()


def playground(browser: Browser, url: str, scheme: Scheme, hash_: str, name: str) -> None:
    """The whole page with an answer."""
    page = opened(browser, f"{url}/ui/#{hash_}", 1440, scheme)
    settled(page)
    save(page.screenshot(full_page=True), name)


def tree(browser: Browser, url: str) -> None:
    """The beam tree alone, with the way to one of its leaves lit."""
    page = opened(browser, f"{url}/ui/#{FILTERED}", 1440, "light")
    page.set_viewport_size({"width": 1440, "height": 2000})  # nothing scrolls away from under the pointer
    settled(page)
    page.locator("#tree .node.leaf").nth(1).hover()
    page.wait_for_timeout(600)
    save(page.locator("#panels").screenshot(), "beam-tree.png")


def narrow(browser: Browser, url: str) -> None:
    """The first screens of a phone."""
    page = opened(browser, f"{url}/ui/#{HISTORY}", 375, "light")
    settled(page)
    save(page.screenshot(full_page=True, clip={"x": 0, "y": 0, "width": 375, "height": 1240}), "playground-narrow.png")


def status(browser: Browser, url: str) -> None:
    """The status page, while somebody asks."""
    page = opened(browser, f"{url}/ui/status", 1280, "light")
    traffic = threading.Thread(target=ask_for, args=(url, TRAFFIC_S))
    traffic.start()
    page.wait_for_timeout(TRAFFIC_S * 1000)
    save(page.screenshot(full_page=True), "status.png")
    traffic.join()


def opened(browser: Browser, address: str, width: int, scheme: Scheme) -> Page:
    """A page in a context of its own."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, device_scale_factor=SCALE
    )
    page = context.new_page()
    page.goto(address)
    return page


def settled(page: Page) -> None:
    """Wait for the answer, and for the names in its tree."""
    page.wait_for_selector("#cards > li")
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(300)


def ask_for(url: str, seconds: float) -> None:
    """Requests that come in waves."""
    dice, end = Random(1), time.monotonic() + seconds
    with httpx.Client(base_url=url) as client:
        for turn in itertools.count():
            if time.monotonic() > end:
                return
            history = [str(dice.randint(1, 1600)) for _ in range(dice.randint(1, 12))]
            client.post("/recommend", json={"history": history, "fields": []})
            time.sleep(dice.choice((0.01, 0.03) if turn // 60 % 2 else (0.05, 0.12)))


def save(png: bytes, name: str) -> None:
    """As a PNG of its 256 commonest colours: flat areas stay as they are, the edges of letters take the nearest."""
    target = IMAGES / name
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    counted = cast(list[tuple[int, tuple[int, int, int]]], picture.getcolors(picture.width * picture.height))
    colours = sorted(counted, reverse=True)[:256]
    palette = Image.new("P", (1, 1))
    palette.putpalette([channel for _, colour in colours for channel in colour])
    picture.quantize(palette=palette, dither=Image.Dither.NONE).save(target, optimize=True)
    size = target.stat().st_size
    print(f"{target.relative_to(ROOT)}: {size // 1000} kB")
    if size > MAX_BYTES:
        sys.exit(f"{target} has {size} bytes, more than {MAX_BYTES}; make it smaller.")


@contextmanager
def serving(bundle: Path) -> Iterator[str]:
    """The address of a server of this bundle."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "genrec", "serve", "--bundle", str(bundle), "--port", "0"],
            stderr=log,
            env={**os.environ, "GENREC_LOG_FORMAT": "json"},
        )
        try:
            yield _address(process, log)
        finally:
            process.terminate()
            process.wait()


def _address(process: subprocess.Popen[bytes], log: io.TextIOBase) -> str:
    while process.poll() is None:
        time.sleep(0.2)
        log.seek(0)
        text = log.read()
        found = re.search(r'"event": "ready".*?"url": "(http[^"]+)"', text)
        if found:
            return found[1]
    log.seek(0)
    sys.exit(f"the server ended:\n{log.read()}")


if __name__ == "__main__":
    main()
