"""Markup by construction: text is escaped unless it is markup already. Knows no page."""

import base64
import html
from pathlib import Path
from typing import Final

# Elements of HTML that have no end tag; those of SVG have one, or what follows would be within them.
_VOID: Final = frozenset({"meta", "img"})


class Markup(str):
    """Text that is HTML and goes in as it is; plain `str` is escaped wherever it is put."""

    __slots__ = ()


def tag(name: str, /, *children: str, **attributes: str) -> Markup:
    """An element. A trailing underscore of an attribute is dropped (``class_``), other underscores become dashes."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(value)}"' for key, value in attributes.items()
    )
    if name in _VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{join(children)}</{name}>")


def join(children: tuple[str, ...] | list[str]) -> Markup:
    """Children one after the other."""
    return Markup("".join(child if isinstance(child, Markup) else html.escape(child) for child in children))


def picture(file: Path, alt: str, caption: str = "") -> Markup:
    """A PNG within the page, and what it shows."""
    encoded = base64.b64encode(file.read_bytes()).decode("ascii")
    image = tag("img", src=f"data:image/png;base64,{encoded}", alt=alt)
    return tag("figure", image, *([tag("figcaption", caption)] if caption else []))


def table(head: list[str], rows: list[list[str]], class_: str = "") -> Markup:
    """A table that scrolls by itself where the screen is narrow; the first column names the row."""
    heads = tag("tr", *(tag("th", cell, scope="col") for cell in head))
    body = [tag("tr", tag("th", first, scope="row"), *(tag("td", cell) for cell in cells)) for first, *cells in rows]
    return tag("div", tag("table", tag("thead", heads), tag("tbody", *body), class_=class_), class_="scroll")
