"""The catalog browser of each bundle that is served, made once, gone with its bundle."""

from threading import Lock
from weakref import WeakKeyDictionary

from genrec.bundle import Bundle
from service.browser import CatalogBrowser


class Browsers:
    """Safe to call from several threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._made: WeakKeyDictionary[Bundle, CatalogBrowser] = WeakKeyDictionary()

    def of(self, bundle: Bundle) -> CatalogBrowser:
        """The browser of a bundle; making it takes seconds for millions of items."""
        with self._lock:
            browser = self._made.get(bundle)
        if browser is not None:
            return browser
        made = CatalogBrowser(bundle.catalog, bundle.trie)  # meanwhile the others can be had
        with self._lock:
            return self._made.setdefault(bundle, made)
