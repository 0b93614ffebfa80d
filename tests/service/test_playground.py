import re
from importlib.resources import files
from pathlib import Path

import pytest

from service.playground import CONTENT_SECURITY_POLICY, read_assets

ASSETS = read_assets()
PAGES = {name: asset.body.decode() for name, asset in ASSETS.items() if asset.media_type.startswith("text/html")}
SCRIPTS = {name: asset.body.decode() for name, asset in ASSETS.items() if name.endswith(".js")}
STYLES = {name: asset.body.decode() for name, asset in ASSETS.items() if name.endswith(".css")}


def test_every_file_of_the_package_is_an_asset_and_pages_lose_their_suffix():
    names = {file.name for file in files("service").joinpath("ui").iterdir()}
    assert set(ASSETS) == {
        "" if name == "index.html" else "status" if name == "status.html" else name for name in names
    }
    assert set(PAGES) == {"", "status"}


def test_what_differs_has_another_tag():
    tags = [asset.etag for asset in ASSETS.values()]
    assert len(set(tags)) == len(tags)
    assert all(re.fullmatch(r'"[0-9a-f]{32}"', tag) for tag in tags)


def test_the_policy_allows_nothing_by_default_and_nothing_inline():
    parts = CONTENT_SECURITY_POLICY.split("; ")
    assert parts[0] == "default-src 'none'"
    assert not re.search(r"unsafe|\*|https?:", CONTENT_SECURITY_POLICY)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_no_inline_script_style_or_handler(name):
    page = PAGES[name]
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:|<form", page)
    assert re.findall(r"<script[^>]*>(.*?)</script>", page, re.DOTALL) == [""] * page.count("<script")


@pytest.mark.parametrize("name", PAGES)
def test_what_a_page_names_is_there(name):
    named = re.findall(r'(?:src|href)="([^"#]+)"', PAGES[name])
    assert named
    for target in named:
        assert target in ("./", "../docs") or target in ASSETS, target


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_imports_what_is_there_and_never_writes_markup(name):
    script = SCRIPTS[name]
    for target in re.findall(r'from "([^"]+)"', script):
        assert target.removeprefix("./") in ASSETS, target
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|setTimeout\(\"", script
    )
    elsewhere = re.findall(r"https?://[^\s\"'`]+", script)
    assert elsewhere in ([], ["http://www.w3.org/2000/svg"])


@pytest.mark.parametrize("name", STYLES)
def test_a_style_fetches_nothing(name):
    assert not re.search(r"url\(|@import", STYLES[name])


@pytest.mark.parametrize("name", [*SCRIPTS, *STYLES])
def test_a_file_fits_on_a_few_screens_and_says_what_it_is(name):
    text = ASSETS[name].body.decode()
    assert text.count("\n") <= 300
    assert text.startswith("/*")


def test_every_element_that_a_script_asks_for_is_on_a_page():
    everywhere = "".join([*PAGES.values(), *SCRIPTS.values()])
    for name, script in SCRIPTS.items():
        for wanted in re.findall(r'byId\("([^"]+)"\)', script):
            assert f'id="{wanted}"' in everywhere or f'id: "{wanted}"' in everywhere, (name, wanted)


def test_pictures_in_the_documents_are_there_and_small():
    root = Path(__file__).parents[2]
    for page in (root / "README.md", *root.glob("docs/*.md")):
        for target in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
            assert 0 < (page.parent / target).stat().st_size < 250_000, (page.name, target)
