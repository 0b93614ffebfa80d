"""One browser and one `genrec serve` process for the tests of the playground."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser

from tests.system.playground.chromium import Visit, launched, visiting
from tests.system.playground.showcase import HOSTILE, showcase_bundle
from tests.system.server import served


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with launched() as opened:
        yield opened


@pytest.fixture(scope="package")
def client(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    root = tmp_path_factory.mktemp("playground")
    with served(showcase_bundle(root), log=root / "log") as opened:
        yield opened


@pytest.fixture
def visit(browser: Browser, client: httpx.Client) -> Iterator[Visit]:
    with visiting(browser, str(client.base_url).rstrip("/")) as visited:
        yield visited


@pytest.fixture(scope="package")
def history(client: httpx.Client) -> list[dict[str, Any]]:
    """Three items whose titles name them."""
    found = client.get("/v1/items", params={"limit": 40}).json()["items"]
    return [item for item in found if item["metadata"]["title"] not in HOSTILE][:3]
