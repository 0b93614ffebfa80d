"""What a person does on the page, and what is read off it."""

from urllib.parse import quote

from playwright.sync_api import Page, expect


def link(history: list[dict], **more: object) -> str:
    parts = [("h", item["item_id"]) for item in history] + list(more.items())
    return "ui/#" + "&".join(f"{name}={quote(str(value))}" for name, value in parts)


def add(page: Page, title: str) -> None:
    page.get_by_role("combobox", name="Search items").fill(title)
    page.get_by_role("option", name=title).first.click()


def titles(page: Page) -> list[str]:
    return page.locator("#cards .item-title").all_text_contents()


def answered(page: Page, count: int = 10) -> list[str]:
    """The titles of the cards, once there are so many and nothing is on its way."""
    expect(page.locator("#cards > li")).to_have_count(count)
    expect(page.locator("#answer")).to_have_attribute("aria-busy", "false")
    return titles(page)
