from html.parser import HTMLParser

import pytest

from service.app import create_app
from service.docs_page import docs_page
from tests.service.fakes import some_settings


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.ids, self.links = set(), set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.ids |= {value for name, value in attrs if name == "id"}
        self.links |= {value for name, value in attrs if name in ("href", "src")}


@pytest.fixture(scope="module")
def text():
    return docs_page(create_app(some_settings()).openapi())


def test_the_page_names_every_path_and_type(text):
    document = create_app(some_settings()).openapi()
    for path in document["paths"]:
        assert path in text
    assert set(document["components"]["schemas"]) <= Page(text).ids


def test_the_page_loads_nothing_and_runs_nothing(text):
    page = Page(text)
    assert not page.tags & {"script", "link", "img", "iframe"}
    assert all(link.startswith("#") or link == "openapi.json" for link in page.links)


def test_every_link_leads_somewhere(text):
    page = Page(text)
    assert {link[1:] for link in page.links if link.startswith("#")} <= page.ids


def test_what_a_document_says_is_text_and_never_markup():
    document = {
        "info": {"title": "<b>", "description": "<i>"},
        "paths": {"/<u>": {"get": {"responses": {}, "description": "<script>"}}},
        "components": {"schemas": {"<a>": {"description": "<em>", "examples": [{"<q>": 1}]}}},
    }
    assert not Page(docs_page(document)).tags & {"b", "i", "u", "script", "em", "q"}
