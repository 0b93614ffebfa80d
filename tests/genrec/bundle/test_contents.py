"""What is loaded is what was sealed: rows D1 to D3 of the promises, for every file of a bundle.

Damage of bytes is told with the file's name and the reason; a copy in progress is no bundle; and whatever is done to
the directory while it is read, or afterwards, what comes out is one bundle or none.
"""

import json
import os
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from genrec.bundle import Bundle, layout, load_bundle, load_draft
from genrec.bundle.contents import HashedFile, check_files, read_sealed
from genrec.bundle.manifest import FileFacts, read_manifest, read_sealed_manifest
from genrec.errors import BundleError
from genrec.recommender import Recommender
from genrec.requests import Request
from tests.fakes import TinyShape, reseal, seal_tiny, tiny_bundle, write_tiny_draft

PLOT = "training/plots/loss.svg"
FILES = (
    "README.md",
    "catalog/ids.marisa",
    "catalog/items.marisa",
    "catalog/items.parquet",
    "golden.jsonl",
    "model/config.json",
    "model/generation_config.json",
    "model/model.safetensors",
    "model/tokenizer.json",
    "model/tokenizer_config.json",
    PLOT,
)


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with files in directories of directories."""
    root = tmp_path_factory.mktemp("contents")
    return seal_tiny(write_tiny_draft(root, TinyShape()), root / "tiny", **{PLOT: "<svg/>" * 40})


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another, with the same files: other weights, other codes, other golden answers."""
    root = tmp_path_factory.mktemp("other")
    return seal_tiny(write_tiny_draft(root, TinyShape(seed=7)), root / "tiny", **{PLOT: "<svg></svg>" * 40})


@pytest.fixture
def copy(sealed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sealed, tmp_path / "tiny"))


# --- D1: every file, every damage ------------------------------------------------------------------------------------


def changed(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda file: file.write_bytes(change(file.read_bytes()))


def flipped(content: bytes) -> bytes:
    at = len(content) * 2 // 3
    return content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :]


def with_hole(content: bytes) -> bytes:
    begin, end = len(content) // 4, max(len(content) // 2, len(content) // 4 + 1)
    return content[:begin] + bytes(end - begin) + content[end:]


def linked(file: Path) -> None:
    shutil.move(file, file.parents[3] / "elsewhere")
    file.symlink_to(file.parents[3] / "elsewhere")


def linked_to_another_of_the_bundle(file: Path) -> None:
    other = file.with_name("zz" + file.name)
    file.rename(other)
    file.symlink_to(other.name)


def directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


def pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


LONGER_OR_SHORTER = r"file {} has \d+ bytes, but manifest\.json lists \d+: it is damaged"
OTHER_BYTES = r"file {} has other bytes than when it was sealed \(sha256 differs\): it is damaged"
NOT_PLAIN = r"file {} is a link, a directory or a device; a bundle holds plain files only"
MISSING = r"file {} is listed in manifest\.json but missing"
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a byte less": (changed(lambda content: content[:-1]), LONGER_OR_SHORTER),
    "a byte more": (changed(lambda content: content + b"\0"), LONGER_OR_SHORTER),
    "half of it": (changed(lambda content: content[: len(content) // 2]), LONGER_OR_SHORTER),
    "nothing of it": (changed(lambda _: b""), LONGER_OR_SHORTER),
    "a bit flipped": (changed(flipped), OTHER_BYTES),
    "the first bit flipped": (changed(lambda content: bytes([content[0] ^ 1]) + content[1:]), OTHER_BYTES),
    "the last bit flipped": (changed(lambda content: content[:-1] + bytes([content[-1] ^ 1])), OTHER_BYTES),
    "a hole of zeros": (changed(with_hole), OTHER_BYTES),
    "missing": (Path.unlink, MISSING),
    "renamed": (lambda file: file.rename(file.with_name("zz" + file.name)), MISSING),
    "of another case": (lambda file: file.rename(file.with_name(file.name.swapcase())), MISSING),
    "a link to the right bytes": (linked, NOT_PLAIN),
    "a link within the bundle": (linked_to_another_of_the_bundle, "not listed"),
    "a directory": (directory, NOT_PLAIN),
    "a pipe": (pipe, NOT_PLAIN),
}


def test_no_file_of_a_bundle_is_forgotten_above(sealed: Path) -> None:
    assert tuple(read_manifest(sealed / layout.MANIFEST).files) == FILES


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_told_by_its_name_and_the_reason(
    tmp_path: Path, sealed: Path, name: str, damage: str
) -> None:
    bundle = Path(shutil.copytree(sealed, tmp_path / "a" / "b" / "tiny"))
    change, sentence = DAMAGES[damage]
    change(bundle / name)
    with pytest.raises(BundleError, match=sentence.format(name.replace(".", r"\."))):
        load_bundle(bundle)


@pytest.mark.parametrize("damage", ["half of it", "nothing of it", "a link to the right bytes"])
def test_a_damaged_manifest_is_told(tmp_path: Path, sealed: Path, damage: str) -> None:
    bundle = Path(shutil.copytree(sealed, tmp_path / "a" / "b" / "c" / "tiny"))
    DAMAGES[damage][0](bundle / layout.MANIFEST)
    with pytest.raises(BundleError, match=r"manifest\.json"):
        load_bundle(bundle)


@pytest.mark.parametrize("damage", ["missing", "renamed", "a directory", "a pipe"])
def test_without_a_manifest_there_is_no_bundle(copy: Path, damage: str) -> None:
    DAMAGES[damage][0](copy / layout.MANIFEST)
    with pytest.raises(BundleError, match=r"has no manifest\.json, so it is not a \(finished\) bundle"):
        load_bundle(copy)


@pytest.mark.parametrize(
    "name",
    [
        "extra.json",
        ".hidden",
        ".cache/of/someone.json",
        "model/model-00002-of-00002.safetensors",
        "model/.gitattributes",
        "catalog/deep/er/items.parquet",
        "training/plots/.loss.svg.swp",
        "MANIFEST.json",
        "zz",
    ],
)
def test_an_extra_file_is_told_wherever_it_lies(copy: Path, name: str) -> None:
    (copy / name).parent.mkdir(parents=True, exist_ok=True)
    (copy / name).write_text("{}")
    with pytest.raises(BundleError, match=rf"file {name} is not listed in manifest\.json; a bundle holds nothing else"):
        load_bundle(copy)


def test_an_extra_link_or_pipe_is_told(copy: Path) -> None:
    (copy / "model" / "deep").symlink_to("/", target_is_directory=True)
    with pytest.raises(BundleError, match="file model/deep is not listed"):
        load_bundle(copy)
    (copy / "model" / "deep").unlink()
    os.mkfifo(copy / "training" / "pipe")
    with pytest.raises(BundleError, match="file training/pipe is not listed"):
        load_bundle(copy)


def test_a_name_that_would_break_the_sentence_is_shown_escaped(copy: Path) -> None:
    (copy / "a\nERROR all is well\x1b[2J").write_text("")
    with pytest.raises(BundleError) as refused:
        load_bundle(copy)
    assert "\\n" in str(refused.value)
    assert str(refused.value).isprintable()


def test_directories_within_directories_without_end_are_refused(copy: Path) -> None:
    before, depth = Path.cwd(), 1500
    os.chdir(copy)
    try:
        for _ in range(depth):
            Path("d").mkdir()
            os.chdir("d")
        Path("file").touch()
        with pytest.raises(BundleError, match=r"file '?d/d/d/.* is not listed"):
            load_bundle(copy)
        Path("file").unlink()
        for _ in range(depth):  # what removes temporary directories would not come so far down
            os.chdir("..")
            Path("d").rmdir()
    finally:
        os.chdir(before)


@pytest.mark.parametrize(
    "name", ["../tiny/README.md", "/etc/hostname", "model/../README.md", "\x00", "a" * 5000, "é\ud83d"]
)
def test_a_file_that_is_listed_outside_is_never_opened(copy: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = read_manifest(copy / layout.MANIFEST)
    lying = manifest.model_copy(update={"files": {**manifest.files, name: FileFacts(bytes=1, sha256="0" * 64)}})
    monkeypatch.setattr(layout, "open_plain", lambda *_: pytest.fail("a file was opened"))
    with pytest.raises(BundleError, match=r"is not below the bundle|but missing"):
        read_sealed(copy, lying)


# --- D2: a copy in progress ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["manifest last", "manifest first", "manifest midway"])
def test_a_copy_is_no_bundle_before_its_last_byte(sealed: Path, tmp_path: Path, order: str) -> None:
    names = list(FILES)
    names.insert({"manifest last": len(names), "manifest first": 0, "manifest midway": 5}[order], layout.MANIFEST)
    target = tmp_path / "copy"
    target.mkdir()
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        content = (sealed / name).read_bytes().rstrip(b"\n")
        for part in (0, len(content) // 2, len(content) - 1):
            (target / name).write_bytes(content[:part])
            with pytest.raises(BundleError):
                load_bundle(target)
        shutil.copyfile(sealed / name, target / name)
        if name != names[-1]:
            with pytest.raises(BundleError):
                load_bundle(target)
    assert load_bundle(target).manifest == load_bundle(sealed).manifest


def test_a_copy_that_allots_its_files_before_it_fills_them_is_no_bundle(sealed: Path, copy: Path) -> None:
    for name in FILES:
        (copy / name).write_bytes(bytes((sealed / name).stat().st_size))
    for name in FILES:
        with pytest.raises(BundleError, match="has other bytes than when it was sealed"):
            load_bundle(copy)
        shutil.copyfile(sealed / name, copy / name)
    load_bundle(copy)


# --- D3: the bytes hashed are the bytes loaded -----------------------------------------------------------------------


def facts(bundle: Bundle) -> tuple[object, ...]:
    """What tells two bundles apart, part by part."""
    return (
        bundle.manifest,
        bundle.catalog.item_ids.to_pylist(),
        bundle.trie.paths.tolist(),
        {name: weight.tolist() for name, weight in bundle.model.state_dict().items()},
        bundle.golden,
    )


def replace_by_rename(target: Path, source: Path) -> None:
    for name in (*FILES, layout.MANIFEST):
        shutil.copyfile(source / name, target / "aside")
        (target / "aside").rename(target / name)


def overwrite_in_place(target: Path, source: Path) -> None:
    for name in (*FILES, layout.MANIFEST):
        with (target / name).open("r+b") as file:
            file.write((source / name).read_bytes())
            file.truncate()


def cut_in_place(target: Path, _: Path) -> None:
    for name in (*FILES, layout.MANIFEST):
        os.truncate(target / name, 1)


def remove(target: Path, _: Path) -> None:
    shutil.rmtree(target)


@pytest.mark.parametrize("way", [replace_by_rename, overwrite_in_place, cut_in_place, remove])
@pytest.mark.parametrize("last", FILES)
def test_what_happens_to_the_directory_after_a_file_was_hashed_never_mixes_two_bundles(
    sealed: Path, other: Path, copy: Path, monkeypatch: pytest.MonkeyPatch, way: Callable[[Path, Path], None], last: str
) -> None:
    finish = HashedFile.finish
    done: list[str] = []

    def finish_and_swap(self: HashedFile, of: FileFacts | None) -> None:
        finish(self, of)
        if self._name == last and not done:
            way(copy, other)
            done.append(last)

    monkeypatch.setattr(HashedFile, "finish", finish_and_swap)
    try:
        bundle = load_bundle(copy)
    except BundleError:
        assert last != "model/model.safetensors"  # which is read after all others: then nothing is missing any more
    else:
        assert facts(bundle) == facts(load_bundle(sealed))
        Recommender.of(bundle).replay_golden()
    assert done == [last]


@pytest.mark.parametrize("way", ["other bytes", "cut", "removed"])
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_changes_once_it_was_hashed_is_loaded_as_it_was_hashed(
    sealed: Path, other: Path, copy: Path, monkeypatch: pytest.MonkeyPatch, name: str, way: str
) -> None:
    """The rest stays as it is, so that nothing else could refuse the bundle or hide the change."""
    finish = HashedFile.finish

    def finish_and_change(self: HashedFile, of: FileFacts | None) -> None:
        finish(self, of)
        if self._name == name:
            (copy / name).unlink() if way == "removed" else os.truncate(copy / name, 1)
            if way == "other bytes":
                (copy / name).write_bytes((other / name).read_bytes())

    monkeypatch.setattr(HashedFile, "finish", finish_and_change)
    bundle = load_bundle(copy)
    monkeypatch.undo()
    assert facts(bundle) == facts(load_bundle(sealed))
    Recommender.of(bundle).replay_golden()


def test_a_file_that_changes_while_it_is_read_is_refused(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readinto = HashedFile.readinto
    weights = copy / "model" / "model.safetensors"
    calls = 0

    def write_between(self: HashedFile, buffer: memoryview, /) -> int:
        nonlocal calls
        if self._name == "model/model.safetensors":
            calls += 1
            if calls == 5:
                content = weights.read_bytes()
                with weights.open("r+b") as file:
                    file.write(flipped(content))
        return readinto(self, buffer)

    monkeypatch.setattr(HashedFile, "readinto", write_between)
    with pytest.raises(BundleError, match=r"model/model\.safetensors has other bytes than when it was sealed"):
        load_bundle(copy)


@pytest.mark.parametrize("reader", [read_sealed, check_files])
def test_a_file_that_grows_without_end_is_given_up(
    copy: Path, monkeypatch: pytest.MonkeyPatch, reader: Callable[..., object]
) -> None:
    checked = layout.open_plain

    def grown(root: Path, name: str) -> object:
        if name in FILES:
            with (root / name).open("ab") as file:
                file.truncate(1 << 33)  # a hole: takes no room
        return checked(root, name)

    monkeypatch.setattr(layout, "open_plain", grown)
    with pytest.raises(BundleError, match=r"has \d+ bytes or more, but manifest\.json lists"):
        reader(copy, read_sealed_manifest(copy))


def test_a_link_that_takes_the_place_of_a_file_after_it_was_listed_is_not_followed(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = layout.open_plain

    def swapped(root: Path, name: str) -> object:
        if name == layout.GOLDEN and not (root / name).is_symlink():
            shutil.move(root / name, tmp_path / "elsewhere")
            (root / name).symlink_to(tmp_path / "elsewhere")
        return opened(root, name)

    monkeypatch.setattr(layout, "open_plain", swapped)
    with pytest.raises(BundleError, match=r"file golden\.jsonl is a link"):
        load_bundle(copy)


def test_two_hundred_reads_beside_a_racing_writer_give_one_bundle_or_none(
    sealed: Path, other: Path, copy: Path
) -> None:
    whole = {
        read_sealed_manifest(root).version: read_sealed(root, read_sealed_manifest(root)) for root in (sealed, other)
    }
    stop = threading.Event()

    def write() -> None:
        rng = random.Random(4)
        while not stop.is_set():
            source = rng.choice([sealed, other])
            way = rng.choice([replace_by_rename, overwrite_in_place])
            way(copy, source)
            stop.wait(rng.random() * 0.01)  # long enough for a read to come through

    writer = threading.Thread(target=write)
    writer.start()
    read, refused = 0, 0
    try:
        for _ in range(200):
            try:
                manifest = read_sealed_manifest(copy)
                contents = read_sealed(copy, manifest)
            except BundleError:
                refused += 1
                continue
            read += 1
            expected = whole[manifest.version]
            assert contents.files == expected.files
            assert contents.checkpoint.texts == expected.checkpoint.texts
            assert all(
                torch.equal(weight, contents.checkpoint.weights[name])
                for name, weight in expected.checkpoint.weights.items()
            )
    finally:
        stop.set()
        writer.join()
    assert read + refused == 200


def mapped(directory: Path) -> list[str]:
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if str(directory) in line]


@pytest.fixture
def answers() -> Iterator[Callable[[Recommender], object]]:
    def ask(recommender: Recommender) -> object:
        return [answer.scored_list for answer in recommender.recommend([Request(["i1", "i2"], k=5), Request(["i7"])])]

    yield ask


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Linux tells what is mapped")
def test_no_file_of_a_loaded_bundle_stays_open_or_mapped(copy: Path) -> None:
    before = set(Path("/proc/self/fd").iterdir())
    recommender = Recommender.load(copy)
    assert mapped(copy) == []
    assert len(set(Path("/proc/self/fd").iterdir()) - before) <= 1  # the listing itself
    assert recommender.bundle.path == copy


@pytest.mark.parametrize("way", [overwrite_in_place, cut_in_place, remove])
def test_a_loaded_bundle_answers_the_same_whatever_becomes_of_its_files(
    bundle_path: Path, other: Path, tmp_path: Path, answers: Callable[[Recommender], object], way: Callable[..., None]
) -> None:
    bundle = Path(shutil.copytree(bundle_path, tmp_path / "tiny"))
    shutil.copytree(other / "training", bundle / "training")
    recommender = Recommender.load(reseal(bundle))
    before = answers(recommender)
    way(bundle, other)
    assert answers(recommender) == before


def test_a_read_only_directory_is_enough(sealed: Path, copy: Path) -> None:
    for path in (copy, *copy.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    assert facts(load_bundle(copy)) == facts(load_bundle(sealed))


def test_drafts_are_read_the_same_way(tmp_path: Path) -> None:
    draft = load_draft(write_tiny_draft(tmp_path, TinyShape()))
    assert draft.golden is None
    assert mapped(tmp_path) == []


# --- weights in several files ----------------------------------------------------------------------------------------


def sharded(bundle: Path) -> Path:
    """The same bundle with its weights in two files and an index."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(bundle / "model" / "model.safetensors")
    (bundle / "model" / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, bundle / "model" / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, part in parts.items() for name in part}}
    (bundle / "model" / "model.safetensors.index.json").write_text(json.dumps(index))
    return reseal(bundle)


def test_weights_in_several_files_are_the_same_weights(sealed: Path, copy: Path) -> None:
    bundle, whole = load_bundle(sharded(copy)), load_bundle(sealed)
    assert facts(bundle)[1:] == facts(whole)[1:]


def test_weights_that_are_no_part_of_the_checkpoint_are_refused(copy: Path) -> None:
    shutil.copyfile(copy / "model" / "model.safetensors", copy / "model" / "other.safetensors")
    with pytest.raises(BundleError, match=r"file model/other\.safetensors holds weights that are no part of"):
        load_bundle(reseal(copy))


def test_a_weight_in_two_files_is_refused(copy: Path) -> None:
    sharded(copy)
    shutil.copyfile(copy / "model" / "a.safetensors", copy / "model" / "b.safetensors")
    with pytest.raises(
        BundleError, match=r"file model/b\.safetensors holds weight '\S+', which another file holds too"
    ):
        load_bundle(reseal(copy))


@pytest.mark.parametrize(
    ("index", "sentence"),
    [
        ({}, "has no weight_map"),
        ([], "has no weight_map"),
        ({"weight_map": {}}, "has no weight_map"),
        ({"weight_map": {"x": "missing.safetensors"}}, "names the file 'missing.safetensors', which is not there"),
        ({"weight_map": {"x": "../../elsewhere.safetensors"}}, "which is not there"),
        ({"weight_map": {"x": "config.json"}}, "names the file 'config.json'"),
    ],
)
def test_an_index_that_leads_elsewhere_is_refused(copy: Path, index: object, sentence: str) -> None:
    sharded(copy)
    (copy / "model" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BundleError, match=rf"the checkpoint in model/ cannot be loaded: .*{sentence}"):
        load_bundle(reseal(copy))


def test_a_causal_bundle_loads_as_every_engine_reads_it(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path)
    for engine in ("beam", "generate"):
        Recommender.load(bundle, engine=engine)
