"""Versions below which a known hole is open, of what the service loads; an audit tool may not reach its data base.

Pins, ranges and what is installed are all held against them. Sources: the advisories named beside each floor.
"""

import re
import tomllib
from importlib.metadata import version

import pytest

from tests.contract.test_docs import document

FLOORS = {
    "torch": (2, 10),  # CVE-2025-32434, CVE-2026-24747: torch.load with weights_only
    "transformers": (5, 10),  # CVE-2026-4372, -5241: code from config.json; -9856: paths in save_pretrained
    "starlette": (1, 3, 1),  # CVE-2025-62727: quadratic Range; CVE-2026-54282: what Host does to request.url
    "h11": (0, 16),  # CVE-2025-43859: lenient chunks
    "uvicorn": (0, 54),  # service/protocol.py overrides its protocol class: read its source before a renewal
    "httptools": (0, 9),  # the same
    "safetensors": (0, 8),
}
UNWANTED = {"python-multipart", "gunicorn", "itsdangerous"}
"""Brought their own advisories, and nothing here needs them: no forms, no static files, no second server."""


def numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text.split("+")[0])))


def pins() -> dict[str, tuple[int, ...]]:
    return {
        name.lower().replace("_", "-"): numbers(pinned)
        for name, pinned in re.findall(r"^([\w.-]+)==(\S+)", document("constraints.txt"), re.MULTILINE)
    }


@pytest.mark.parametrize("name", FLOORS)
def test_what_is_pinned_and_what_is_installed_is_above_the_floor(name):
    assert pins()[name] >= FLOORS[name]
    assert numbers(version(name)) >= FLOORS[name]


def test_the_ranges_of_the_package_begin_above_the_floors():
    project = tomllib.loads(document("pyproject.toml"))["project"]
    ranges = [*project["dependencies"], *project["optional-dependencies"]["service"]]
    lowest = {re.split(r"[\[>]", text)[0]: numbers(text.rpartition(">=")[2]) for text in ranges}
    assert {name: lowest[name] >= floor for name, floor in FLOORS.items() if name in lowest} == {
        "torch": True,
        "transformers": True,
        "uvicorn": True,
        "safetensors": True,
    }


def test_what_is_not_needed_is_not_pinned():
    assert UNWANTED.isdisjoint(pins())


def test_a_version_below_its_floor_would_be_seen():
    assert numbers("2.9.1+cpu") == (2, 9, 1) < FLOORS["torch"]
    assert numbers("1.10.0") > FLOORS["starlette"]
