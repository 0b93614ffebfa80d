"""A bundle is chosen by a name, never by a path: whatever else is sent is refused and nothing outside is looked at."""

import json
import os
import shutil
from pathlib import Path

import pytest

from genrec.bundle import Shelf, layout, load_bundle, shelf
from genrec.errors import BundleError, InputError
from tests.audit import listening
from tests.fakes import reseal


@pytest.fixture
def root(causal_bundle_path: Path, tmp_path: Path) -> Path:
    """Bundles `one` and `two.2-b_c` on a shelf, and a whole bundle beside the shelf, which must not be reached."""
    shelf_root = tmp_path / "shelf"
    shutil.copytree(causal_bundle_path, shelf_root / "one")
    reseal(Path(shutil.copytree(causal_bundle_path, shelf_root / "two.2-b_c")), name="second")
    shutil.copytree(causal_bundle_path, tmp_path / "outside")
    return shelf_root


def test_a_bundle_is_found_by_the_name_of_its_directory(root: Path) -> None:
    assert Shelf(root).find("one") == root / "one"
    assert load_bundle(Shelf(root).find("two.2-b_c")).manifest.name == "second"


def test_a_name_may_have_sixty_four_letters(root: Path) -> None:
    for name in ("a" * 64, "9", "0.._", "A-"):
        shutil.copytree(root / "one", root / name)
        assert Shelf(root).find(name) == root / name


HOSTILE: list[object] = [
    "", ".", "..", "...", "../outside", "../shelf/one", "..\\outside", "one/..", "one/../one", "./one", "one/",
    "/one", "one/.", "//one", "one//", "/etc", "/etc/passwd", "~", "~root", "$HOME", "${HOME}", "%2e%2e",
    "%2e%2e%2foutside", "..%2foutside", "%2fetc%2fpasswd", "..%252foutside", "..%c0%afoutside", "one%00",
    "one\0", "\0one", "one\0/../outside", "one\n", "\none", "one\r\nHost: x", "one\t", " one", "one ", "one#",
    "#one", "one#/../../outside", "one?x=1", "one;x", "one&two", "one|two", "`one`", "$(one)", "one*", "o?e",
    "[o]ne", "{one,two}", "file://one", "file:///etc/passwd", "http://localhost/one", "s3://bucket/one",
    "hf://user/one", "C:\\one", "C:one", "\\\\host\\share", "one:stream", "a" * 65, "a" * 5000,
    "../" * 500 + "etc/passwd", ".one", "-one", "_one", "one:", "öne", "оne", "ｏne", "one\u2044x", "one\u202ee",
    "on\u0065\u0301", "one\ud800", "one.tar.gz/..", "'one'", '"one"', "<one>", "one,two", "one=1", "one@2",
    "one+two", "one!", None, 7, b"one", ["one"], {"name": "one"}, True, Path("one"),
]  # fmt: skip


def test_the_table_below_is_as_long_as_promised() -> None:
    assert len(HOSTILE) >= 60
    assert len({repr(name) for name in HOSTILE}) == len(HOSTILE)


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: ascii(name)[:40])
def test_what_is_not_a_name_is_refused_unseen_and_not_repeated(root: Path, name: object) -> None:
    with listening() as heard, pytest.raises(InputError) as refused:
        Shelf(root).find(name)  # type: ignore[arg-type]
    assert heard.paths == []
    assert str(refused.value) == (
        "a bundle is called by its name: 1 to 64 letters, digits, dots, dashes and underscores, the first a letter "
        "or a digit."
    )


def not_a_bundle(root: Path) -> dict[str, str]:
    """What may lie on a shelf and is no bundle: name -> reason."""
    (root / "file").write_text("{}")
    (root / "empty").mkdir()
    (root / "out").symlink_to(root.parent / "outside", target_is_directory=True)
    (root / "in").symlink_to("one", target_is_directory=True)
    (root / "broken").symlink_to("nowhere")
    (root / "loop").symlink_to("loop")
    (root / "absolute").symlink_to("/etc")
    os.mkfifo(root / "pipe")
    (root / "deeper" / "one").parent.mkdir()
    shutil.copytree(root / "one", root / "deeper" / "one")
    for name in ("manifest-link", "manifest-pipe", "manifest-directory", "unfinished"):
        shutil.copytree(root / "one", root / name)
        (root / name / layout.MANIFEST).unlink()
    (root / "manifest-link" / layout.MANIFEST).symlink_to(root.parent / "outside" / layout.MANIFEST)
    os.mkfifo(root / "manifest-pipe" / layout.MANIFEST)
    (root / "manifest-directory" / layout.MANIFEST).mkdir()
    own, none = "is not a directory of its own", r"has no manifest\.json, so it is not a \(finished\) bundle"
    odd = r"file manifest\.json is a link, a directory or a device"
    return {
        "file": own, "out": own, "in": own, "broken": own, "loop": own, "absolute": own, "pipe": own,
        "empty": none, "deeper": none, "unfinished": none,
        "manifest-link": odd, "manifest-pipe": odd, "manifest-directory": odd,
        "nothing": "there is no such bundle", "ONE": "there is no such bundle",
    }  # fmt: skip


def test_what_is_on_the_shelf_but_no_bundle_is_refused_unopened(root: Path) -> None:
    for name, reason in not_a_bundle(root).items():
        with listening() as heard, pytest.raises(BundleError, match=f"^{name}: {reason}"):
            Shelf(root).find(name)
        assert heard.paths == [], name


def test_a_socket_is_no_bundle(root: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as listener:
        before = Path.cwd()
        os.chdir(root)  # the address of a socket is short
        try:
            listener.bind("socket")
        finally:
            os.chdir(before)
        with pytest.raises(BundleError, match="socket: is not a directory of its own"):
            Shelf(root).find("socket")


def test_the_shelf_itself_may_be_a_link(root: Path) -> None:
    (root.parent / "current").symlink_to(root, target_is_directory=True)
    assert load_bundle(Shelf(root.parent / "current").find("one")).manifest.name == "tiny"


def test_a_shelf_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="one: there is no such bundle"):
        Shelf(tmp_path / "nothing").find("one")
    with pytest.raises(InputError, match="the directory of bundles cannot be read"):
        Shelf(tmp_path / "nothing").listing()


def test_a_directory_that_may_not_be_read_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(path: Path) -> os.stat_result:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "lstat", forbidden)
    with pytest.raises(BundleError, match=r"^one: cannot be read: \[Errno 13\] Permission denied$"):
        Shelf(root).find("one")


# --- the listing -----------------------------------------------------------------------------------------------------


def test_bundles_are_listed_by_name_with_what_they_are(root: Path) -> None:
    listing = Shelf(root).listing()
    assert [(shelved.name, shelved.reason) for shelved in listing.bundles] == [("one", None), ("two.2-b_c", None)]
    assert listing.complete
    for shelved in listing.bundles:
        assert shelved.manifest == load_bundle(root / shelved.name).manifest
    assert listing.bundles[1].manifest.name == "second"


def test_directories_that_are_no_bundle_are_listed_with_the_reason(root: Path) -> None:
    not_a_bundle(root)
    shutil.copytree(root / "one", root / "edited")
    text = (root / "edited" / layout.MANIFEST).read_text()
    (root / "edited" / layout.MANIFEST).write_text(text.replace('"tiny"', '"edit"'))
    shutil.copytree(root / "one", root / "newer")
    reseal(root / "newer", format_version=2)
    shutil.copytree(root / "one", root / ".two.sealing-7")
    shutil.copytree(root / "one", root / "draft")
    raw = json.loads((root / "draft" / layout.MANIFEST).read_text())
    (root / "draft" / layout.MANIFEST).write_text(json.dumps(raw | {"version": "draft"}))
    reasons = {shelved.name: shelved.reason for shelved in Shelf(root).listing().bundles}
    assert reasons.keys() == {
        "one", "two.2-b_c", "edited", "newer", "draft", "empty", "deeper", "unfinished", "manifest-link",
        "manifest-pipe", "manifest-directory", "out", "in", "broken", "loop", "absolute",
    }  # fmt: skip
    assert reasons["one"] is None
    assert "it was edited after it was sealed" in str(reasons["edited"])
    assert "format_version 2; this version of genrec reads up to 1" in str(reasons["newer"])
    assert reasons["draft"] == "draft is a draft; seal it first."
    assert reasons["out"] == "is not a directory of its own."
    assert not any(str(root) in str(reason) for reason in reasons.values())


def test_a_listing_reads_manifests_and_nothing_else(root: Path) -> None:
    with listening() as heard:
        Shelf(root).listing()
    assert heard.paths == [str(root), str(root / "one" / layout.MANIFEST), str(root / "two.2-b_c" / layout.MANIFEST)]


def test_a_listing_is_bounded_in_number(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(30):
        (root / f"n{number:02}").mkdir()
    monkeypatch.setattr(shelf, "MAX_LISTED", 5)
    listing = Shelf(root).listing()
    assert [shelved.name for shelved in listing.bundles] == ["n00", "n01", "n02", "n03", "n04"]
    assert not listing.complete
    monkeypatch.setattr(shelf, "MAX_LISTED", 1000)
    assert Shelf(root).listing().complete
    monkeypatch.setattr(shelf, "MAX_SCANNED", 10)
    assert not Shelf(root).listing().complete


def test_a_listing_is_bounded_in_bytes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = (root / "one" / layout.MANIFEST).stat().st_size
    monkeypatch.setattr(shelf, "MAX_MANIFEST_BYTES", size + 10)
    with listening() as heard:
        one, two = Shelf(root).listing().bundles
    assert (one.reason, two.reason) == (None, "manifest.json is not read: there is too much to list.")
    assert len(heard.paths) == 2


def test_a_bundle_that_goes_away_while_it_is_listed_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(directory: Path) -> None:
        raise FileNotFoundError(2, "No such file or directory", str(directory))

    monkeypatch.setattr(shelf, "read_sealed_manifest", gone)
    one, _ = Shelf(root).listing().bundles
    assert one.reason == "file manifest.json cannot be read: [Errno 2] No such file or directory"
