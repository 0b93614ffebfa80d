"""Where a document names a test or a command as its proof, there is one."""

import re
import tomllib

import pytest

from tests.contract.test_docs import DOCUMENTS, ROOT, document

NAMED = re.compile(r"(tests/[\w/]+\.py)::(\w+)")
HEADINGS = [
    "Tokens", "LoRA", "Data set", "Model", "TrainingArguments", "Training", "Inference", "Details",
]  # fmt: skip


def missing_tests(text: str) -> list[str]:
    return [
        f"{file}::{name}"
        for file, name in NAMED.findall(text)
        if not (ROOT / file).is_file()
        or not re.search(rf"^(?:async )?def {name}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
    ]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_test_that_a_document_names_exists(path):
    assert not missing_tests(path.read_text(encoding="utf-8"))


def test_a_test_that_does_not_exist_is_found():
    here = "tests/contract/test_named_tests.py"
    assert missing_tests(f"`{here}::test_nothing` and `tests/none.py::test_a` and `{here}::missing_tests`") == [
        f"{here}::test_nothing",
        "tests/none.py::test_a",
    ]


def test_every_line_from_the_note_names_its_test_or_command():
    page = document("docs/from-the-note.md")
    commands = tomllib.loads(document("pyproject.toml"))["project"]["entry-points"]["genrec.commands"]
    rows = [
        line for line in page.splitlines() if line.startswith("|") and not line.startswith(("| in the note", "|--"))
    ]
    assert len(rows) > 40
    for row in rows:
        assert row.count(" | ") == 3, row
        proof = row.rstrip("| ").rpartition(" | ")[2]
        command = re.match(r"`genrec (\w+)", proof)
        assert NAMED.search(proof) or (command and command[1] in commands), row
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == HEADINGS
