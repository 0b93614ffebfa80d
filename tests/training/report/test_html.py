import base64
import html
from html.parser import HTMLParser
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from training.report.html import Markup, join, picture, table, tag


class Reading(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: dict[str, str | None] = {}
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= dict(attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


def read(markup: str) -> Reading:
    reading = Reading()
    reading.feed(markup)
    reading.close()
    return reading


@given(text=st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_text_comes_out_as_it_went_in_and_makes_no_element(text: str) -> None:
    reading = read(tag("p", text, title=text))
    assert reading.tags == ["p"]
    assert html.unescape(reading.text) == text
    assert reading.attributes == {"title": text}


def test_markup_goes_in_as_it_is() -> None:
    assert tag("p", tag("b", "a & b"), " < c") == "<p><b>a &amp; b</b> &lt; c</p>"
    assert join([Markup("<i>"), "<i>"]) == "<i>&lt;i&gt;"
    assert isinstance(join([]), Markup)


def test_names_of_attributes_may_be_words_of_python() -> None:
    assert tag("meta", name="a", class_="b", stroke_width="2") == '<meta name="a" class="b" stroke-width="2">'


def test_elements_of_svg_are_closed_or_what_follows_would_be_within_them() -> None:
    assert tag("line", x1="0") == '<line x1="0"></line>'


def test_a_picture_is_within_the_page(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG...")
    shown = picture(tmp_path / "a.png", 'said "so"', "<caption>")
    encoded = base64.b64encode(b"\x89PNG...").decode()
    assert f'src="data:image/png;base64,{encoded}"' in shown
    assert 'alt="said &quot;so&quot;"' in shown
    assert "<figcaption>&lt;caption&gt;</figcaption>" in shown
    assert "figcaption" not in picture(tmp_path / "a.png", "alone")


def test_rows_of_a_table_are_named_by_their_first_cell() -> None:
    made = table(["<h>", "x"], [["<r>", "1"], ["s", Markup("<b>2</b>")]], class_="c")
    assert made.count("<tr>") == 3
    assert '<th scope="row">&lt;r&gt;</th><td>1</td>' in made
    assert "<td><b>2</b></td>" in made
