"""Bundles of checkpoints that know nothing of us: a tokenizer of their own, sparse codes, two items on one ID."""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from genrec.bundle import Manifest, load_bundle
from genrec.errors import BundleError, DataError, InputError
from genrec.history import HistoryEncoder
from genrec.models import Architecture
from genrec.recommender import Recommender
from genrec.requests import Request
from tests.fakes import tiny_model, tiny_tokenizer
from tests.training.bench import RememberingProgress, write_csv
from tests.training.test_commands import call
from training import commands
from training.import_checkpoint import Imported, PromptFile, import_checkpoint, read_prompt

SIZES = (9, 6)
"""What the checkpoint has tokens for; the file of codes uses fewer."""

CODES = {"a": (2, 1), "b": (2, 4), "c": (7, 1), "d": (7, 0), "e": (8, 5)}


@dataclass(frozen=True)
class Foreign:
    """Files as someone else has them."""

    folder: Path
    architecture: Architecture

    @property
    def parts(self) -> Imported:
        folder = self.folder
        return Imported(
            folder / "hf", folder / "hf", folder / "codes.csv", folder / "items.csv", folder / "prompt.json"
        )

    def codes(self, codes: dict[str, tuple[int, ...]]) -> None:
        write_csv(
            self.folder / "codes.csv",
            "item_id," + ",".join(f"code_{level}" for level in range(2)),
            *(",".join(map(str, (item, *row))) for item, row in codes.items()),
        )

    def prompt(self, **keys: Any) -> None:
        (self.folder / "prompt.json").write_text(json.dumps(keys))

    def imported(self, **changes: Any) -> tuple[Manifest, list[str]]:
        said = RememberingProgress()
        arguments: dict[str, Any] = {"name": "foreign", "on_collision": "refuse", "replace": False, "progress": said}
        return import_checkpoint(self.parts, self.folder / "bundle", **(arguments | changes)), said.lines

    def refusal(self, **changes: Any) -> str:
        with pytest.raises(DataError) as caught:
            self.imported(**changes)
        assert not (self.folder / "bundle").exists()
        return str(caught.value)


@pytest.fixture
def foreign(architecture: Architecture, tmp_path: Path) -> Foreign:
    return write_foreign(architecture, tmp_path)


@pytest.fixture
def causal(tmp_path: Path) -> Foreign:
    return write_foreign("causal", tmp_path)


def write_foreign(architecture: Architecture, folder: Path) -> Foreign:
    tokenizer = tiny_tokenizer(SIZES)
    tokenizer.save_pretrained(folder / "hf")
    tiny_model(architecture, len(tokenizer)).save_pretrained(folder / "hf")
    made = Foreign(folder, architecture)
    made.codes(CODES)
    made.prompt(prefix=["<s>"], suffix=[1], max_history_items=3)
    write_csv(folder / "items.csv", "item_id,title", "a,Anna", "b,", "c,Carl", "d,Dora", "e,Emil")
    return made


def test_no_weight_changes_and_transformers_alone_reads_the_result(foreign: Foreign) -> None:
    foreign.imported()
    model = foreign.folder / "bundle" / "model"
    before, after = (load_file(path / "model.safetensors") for path in (foreign.folder / "hf", model))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    auto = AutoModelForSeq2SeqLM if foreign.architecture == "seq2seq" else AutoModelForCausalLM
    tokenizer = AutoTokenizer.from_pretrained(model)
    inputs = tokenizer("<s> <a_2> <b_1>", return_tensors="pt", return_token_type_ids=False)
    assert auto.from_pretrained(model).generate(**inputs, max_new_tokens=2).shape[0] == 1


def test_codes_with_gaps_keep_the_tokens_they_were_trained_with(foreign: Foreign) -> None:
    manifest, said = foreign.imported()
    known = AutoTokenizer.from_pretrained(foreign.folder / "hf").get_vocab()
    assert manifest.codebook_sizes == (3, 4)
    assert manifest.item_token_ids == (
        tuple(known[f"<a_{code}>"] for code in (2, 7, 8)),
        tuple(known[f"<b_{code}>"] for code in (0, 1, 4, 5)),
    )
    assert any("Level 0: 3 codes, 2 to 8, were renumbered" in line for line in said)
    bundle = load_bundle(foreign.folder / "bundle")
    for item, codes in CODES.items():
        row = bundle.catalog.row(item)
        spelled = [known[f"<{letter}_{code}>"] for letter, code in zip("ab", codes, strict=True)]
        assert row is not None and bundle.encoder.target(row) == spelled


def test_a_history_becomes_what_the_prompt_file_says(foreign: Foreign) -> None:
    foreign.prompt(prefix=["<s>", "<unk>"], separator=["<unk>"], suffix=["</s>"], max_history_items=2, max_k=4)
    manifest, _ = foreign.imported()
    bundle = load_bundle(foreign.folder / "bundle")
    encoder: HistoryEncoder = bundle.encoder
    rows = [bundle.catalog.row(item) for item in ("a", "c", "e")]
    tokenizer = AutoTokenizer.from_pretrained(foreign.folder / "hf")
    asked = tokenizer("<s> <unk> <a_7> <b_1> <unk> <a_8> <b_5> </s>", add_special_tokens=False).input_ids
    assert encoder.encode([row for row in rows if row is not None]) == asked
    assert manifest.generation.max_k == 4
    assert json.loads((foreign.folder / "bundle/training/prompt.json").read_text())["max_history_items"] == 2


def test_what_is_imported_is_verified_and_answers(foreign: Foreign) -> None:
    manifest, _ = foreign.imported()
    recommender = Recommender.load(foreign.folder / "bundle")
    answer, popular = recommender.recommend([Request(["a"], k=5), Request([], k=2)])
    assert {item.item_id for item in answer.items} == {"b", "c", "d", "e"}
    assert [item.row for item in popular.items] == [0, 1]  # popularity is unknown
    assert manifest.provenance == {"base_model": "hf", "method": "imported"}


def test_an_empty_title_is_no_title(foreign: Foreign) -> None:
    foreign.imported()
    catalog = load_bundle(foreign.folder / "bundle").catalog
    row_of = {catalog.item_id(row): row for row in range(len(catalog))}
    assert [catalog.describe(row_of[item])["title"] for item in "abc"] == ["Anna", None, "Carl"]
    assert catalog.metadata.schema.field("title").type == pa.string()  # and not polars' large one


def test_items_that_share_their_codes_are_refused_with_both_names_and_the_ways_out(causal: Foreign) -> None:
    causal.codes(CODES | {"d": (2, 4), "e": (2, 4)})
    told = causal.refusal()
    assert "2 items have the semantic ID of another, such as 'd' that of 'b', (2, 4)" in told
    assert "--collisions reassign" in told


def test_reassigned_items_get_the_smallest_free_code_that_some_item_has(foreign: Foreign) -> None:
    foreign.codes({"a": (2, 1), "b": (2, 4), "c": (7, 0), "d": (2, 4), "e": (2, 4), "f": (7, 5)})
    write_csv(foreign.folder / "items.csv", "item_id", *"fedcba")
    manifest, said = foreign.imported(on_collision="reassign")
    listed = json.loads((foreign.folder / "bundle/training/reassigned.json").read_text())
    assert listed == [
        {"item_id": "d", "shared_with": "b", "given": [2, 4], "now": [2, 0]},
        {"item_id": "e", "shared_with": "b", "given": [2, 4], "now": [2, 5]},
    ]
    assert any("2 of 6 items shared their codes" in line for line in said)
    assert manifest.provenance["reassigned_items"] == 2
    assert "2 items shared their semantic ID" in (foreign.folder / "bundle/README.md").read_text()
    bundle = Recommender.load(foreign.folder / "bundle").bundle
    known = AutoTokenizer.from_pretrained(foreign.folder / "hf").get_vocab()
    row = bundle.catalog.row("e")
    assert row is not None and bundle.encoder.target(row) == [known["<a_2>"], known["<b_5>"]]


def test_without_a_collision_reassigning_changes_nothing(causal: Foreign) -> None:
    plain, _ = causal.imported()
    other, said = causal.imported(on_collision="reassign", replace=True)
    assert plain.version == other.version
    assert not any("free code" in line for line in said)


def test_a_prefix_without_a_free_code_is_refused(causal: Foreign) -> None:
    causal.codes({"a": (2, 1), "b": (2, 1), "c": (2, 4), "d": (3, 1), "e": (2, 4)})
    told = causal.refusal(on_collision="reassign")
    assert "item 'b' shares its codes with 'a', and all 2 codes of the last level are taken" in told


def test_tokens_spelled_in_another_way_are_found_by_the_spelling(causal: Foreign) -> None:
    causal.codes({item: (first + 1, second) for item, (first, second) in CODES.items()})
    assert "no token '<a_9>' (level 0); say how tokens are spelled with 'spelling'" in causal.refusal()
    causal.codes(CODES)
    causal.prompt(spelling="[{level}:{code}]")
    assert "no token '[0:2]'" in causal.refusal()
    tokenizer = AutoTokenizer.from_pretrained(causal.folder / "hf")
    tokenizer.add_tokens([f"[{level}:{code}]" for level, size in enumerate(SIZES) for code in range(size)])
    tokenizer.save_pretrained(causal.folder / "hf")
    tiny_model("causal", len(tokenizer)).save_pretrained(causal.folder / "hf")
    manifest, _ = causal.imported()
    assert manifest.item_token_ids[0] == tuple(tokenizer.convert_tokens_to_ids(["[0:2]", "[0:7]", "[0:8]"]))


def test_token_strings_need_no_spelling(causal: Foreign) -> None:
    table = {item: [f"<a_{first}>", f"<b_{second}>"] for item, (first, second) in CODES.items()}
    (causal.folder / "codes.json").write_text(json.dumps(table))
    by_number, _ = causal.imported()
    parts = replace(causal.parts, codes=causal.folder / "codes.json")
    by_name = import_checkpoint(
        parts, causal.folder / "other", name="foreign", on_collision="refuse", replace=False,
        progress=RememberingProgress(),
    )  # fmt: skip
    assert by_name.version == by_number.version


def test_one_token_on_two_levels_is_refused(causal: Foreign) -> None:
    causal.prompt(spelling="<a_{code}>")
    causal.codes({"a": (1, 2), "b": (1, 1), "c": (2, 1), "d": (2, 2), "e": (1, 3)})
    assert "token '<a_1>' stands for a code of level 0 and for one of level 1" in causal.refusal()


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"sufix": ["</s>"]}, "sufix: Extra inputs are not permitted; keys are prefix, separator"),
        ({"max_history_items": 0}, "max_history_items: Input should be greater than or equal to 1"),
        ({"prefix": ["<nothing>"]}, "names '<nothing>', which is not a token of the tokenizer"),
        ({"prefix": [-1]}, "prefix"),
        ({"prefix": [True]}, "prefix"),
        ({"spelling": "<{letter}_{number}>"}, "spelling: Value error, it may hold {letter}, {level} and {code}"),
        ({"spelling": "<{code"}, "spelling: Value error, it may hold"),
        ({"spelling": "<{letter}>"}, "spelling: Value error, it must hold {code}"),
    ],
)
def test_a_prompt_file_that_cannot_be_is_refused_with_its_key(causal: Foreign, keys: Any, told: str) -> None:
    causal.prompt(**keys)
    assert told in causal.refusal()


def test_a_prompt_file_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.json cannot be read"):
        read_prompt(tmp_path / "none.json")
    (tmp_path / "prompt.json").write_text("prefix: </s>")
    with pytest.raises(DataError, match=r"prompt.json: the file: Invalid JSON"):
        read_prompt(tmp_path / "prompt.json")
    (tmp_path / "prompt.json").write_text("{}")
    assert read_prompt(tmp_path / "prompt.json") == PromptFile()


def test_an_id_beyond_the_vocabulary_is_refused(causal: Foreign) -> None:
    causal.prompt(prefix=[5_000])
    with pytest.raises(BundleError, match="prompt token id 5000, beyond the"):
        causal.imported()


def test_a_checkpoint_that_does_not_say_where_its_decoder_starts_is_refused(tmp_path: Path) -> None:
    foreign = write_foreign("seq2seq", tmp_path)
    file = tmp_path / "hf/config.json"
    config = json.loads(file.read_text())
    del config["decoder_start_token_id"]
    file.write_text(json.dumps(config))
    with pytest.raises(InputError, match="lacks decoder_start_token_id; add it"):
        foreign.imported()


def test_files_that_do_not_fit_together_are_named(causal: Foreign) -> None:
    write_csv(causal.folder / "items.csv", "item_id", *"abcdef")
    assert "has no codes for 1 items ('f')" in causal.refusal()
    write_csv(causal.folder / "items.csv", "asin", "a")
    assert "has no column 'item_id'" in causal.refusal()
    write_csv(causal.folder / "codes.csv", "item_id,c0,c1", "a,1,1")
    write_csv(causal.folder / "items.csv", "item_id", "a")
    assert "rename its own so" in causal.refusal()


def test_a_name_that_no_bundle_can_have_is_refused(causal: Foreign) -> None:
    with pytest.raises(InputError, match="give --name"):
        causal.imported(name="my bundle")


def test_the_command_reads_its_options(causal: Foreign) -> None:
    causal.codes(CODES | {"d": (2, 4)})
    parts = causal.parts
    names = ("model", "tokenizer", "codes", "items", "prompt")
    options = [text for name in names for text in (f"--{name}", str(getattr(parts, name)))]
    options += ["--output", str(causal.folder / "mine")]
    said = call(commands.import_bundle, *options, "--collisions", "reassign")
    assert re.search(r"bundle: .*/mine \(mine [0-9a-f]{12}\)", said)
    with pytest.raises(BundleError, match="--replace"):
        call(commands.import_bundle, *options)
