"""The documents say what the code does: every module, setting and key is in its table, and every link leads somewhere.

A row that fails here is printed as it should stand in the document.
"""

import inspect
import re
import sys
import tomllib
import typing
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from genrec.bundle import Manifest
from service.errors import INTERNAL, KINDS
from service.metrics import Metrics
from service.settings import PREFIX, Settings
from training import arguments
from training.import_checkpoint import PromptFile
from training.recipe import Recipe, builtin_recipes
from training.stages import STAGES

ROOT = Path(__file__).parents[2]
PACKAGES = ("genrec", "service", "training")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/**/*.md")])
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
ADR_PARTS = ["Context", "Decision", "Consequences", "Alternatives"]


def document(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def shown(value: object) -> str:
    """A default as its table shows it: TOML, or none."""
    match value:
        case None:
            return "none"
        case bool():
            return f"`{str(value).lower()}`"
        case tuple() | list():
            return f"`[{', '.join(shown(part).strip('`') for part in value)}]`"
        case dict():
            pairs = (f"{key} = {shown(part).strip('`')}" for key, part in value.items())
            return f"`{{ {', '.join(pairs)} }}`" if value else "`{}`"
        case str():
            return f'`"{value}"`'
    return f"`{value}`"


def section_in(annotation: object) -> type[BaseModel] | None:
    """The section class inside an annotation such as ``ItemsSource | None`` or ``dict[str, MetadataColumn]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(section_in, typing.get_args(annotation))), None)


def choices(annotation: object) -> list[str]:
    """The words that an annotation allows, if it is a choice among words."""
    if typing.get_origin(annotation) is typing.Literal:
        return [shown(word) for word in typing.get_args(annotation)]
    return [word for inner in typing.get_args(annotation) for word in choices(inner)]


def is_mapping(annotation: object) -> bool:
    return typing.get_origin(annotation) is dict or any(map(is_mapping, typing.get_args(annotation)))


def described(section: type[BaseModel], name: str) -> str:
    """What the docstring of a section says of one of its keys, or its first sentence for a key that is a section."""
    for owner in section.__mro__:
        text = inspect.cleandoc(owner.__doc__ or "").partition("Attributes:\n")[2]
        found = re.search(rf"^    {name}: (.*(?:\n {{8}}.*)*)", text, re.MULTILINE)
        if found:
            return " ".join(found[1].split()).replace("``", "`").replace("|", "\\|")
    inner = section_in(section.model_fields[name].annotation)
    return " ".join(inspect.cleandoc(inner.__doc__ or "").split("\n\n")[0].split()) if inner else ""


def recipe_rows(
    section: type[BaseModel] = Recipe, prefix: str = "", given: BaseModel | None = None
) -> Iterator[tuple[str, str]]:
    """Every key of a recipe with its row of the table, sections flattened."""
    for name, field in section.model_fields.items():
        key = prefix + name
        default = getattr(given, name) if given is not None else field.get_default(call_default_factory=True)
        inner = section_in(field.annotation)
        if inner is None or default is None:
            text = "required" if default is PydanticUndefined else shown(default)
            allowed = f" One of {', '.join(choices(field.annotation))}." if choices(field.annotation) else ""
            yield key, f"| `{key}` | {text} | {described(section, name)}{allowed} |"
        if inner is not None:
            below = f"{key}.NAME." if is_mapping(field.annotation) else f"{key}."
            yield from recipe_rows(inner, below, default if isinstance(default, BaseModel) else None)


def manifest_keys(section: type[BaseModel] = Manifest, prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        yield prefix + name
        inner = section_in(field.annotation)
        if inner is not None:
            yield from manifest_keys(
                inner, f"{prefix}{name}.PATH." if is_mapping(field.annotation) else f"{prefix}{name}."
            )


def anchors(text: str) -> set[str]:
    """The anchors of a document's headings, as the usual hosts make them."""
    heads = re.findall(r"^#+ (.*)$", without_code(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_the_structure_page_lists_every_module_and_no_other():
    listed = re.findall(
        r"^\| `((?:genrec|service|training)/\S+\.py)` \| \S", document("docs/structure.md"), re.MULTILINE
    )
    modules = [path.relative_to(ROOT).as_posix() for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    assert sorted(listed) == sorted(modules)


def test_every_setting_is_documented_with_its_default():
    page = document("docs/serving.md")
    for name, field in Settings.model_fields.items():
        given = "computed" if field.default_factory else shown(field.default)
        default = "required" if field.is_required() else given
        assert f"| `{PREFIX}{name.upper()}` | {default} |" in page


def test_the_page_names_no_setting_that_does_not_exist():
    known = {PREFIX + name.upper() for name in Settings.model_fields} | {"GENREC_CACHE_DIR"}
    for name in ("docs/serving.md", "docs/training.md"):
        assert set(re.findall(r"GENREC_[A-Z_]+[A-Z]", document(name))) <= known


def test_every_recipe_key_is_documented_with_its_default_and_meaning():
    page = document("docs/training.md")
    rows = dict(recipe_rows())
    missing = [row for row in rows.values() if row not in page]
    assert not missing, "docs/training.md lacks these rows:\n" + "\n".join(missing)
    tables = page.partition("## Every key of a recipe")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\S+)` \|", tables, re.MULTILINE) == list(rows)


def test_every_default_of_a_training_argument_is_documented():
    page = document("docs/training.md")
    for name, value in arguments.DEFAULTS.items():
        assert f"| `{name}` | {shown(value)} |" in page
    for name in (*arguments.OURS, *arguments.INSTEAD):
        assert f"`{name}`" in page


def test_every_key_of_a_prompt_file_is_documented_with_its_default():
    page = document("docs/training.md")
    for name, field in PromptFile.model_fields.items():
        assert f"| `{name}` | {shown(field.default)} |" in page


def test_every_manifest_key_is_documented():
    page = document("docs/bundle-format.md")
    for key in manifest_keys():
        assert f"| `{key}` |" in page


def test_the_version_example_computes_the_version(causal_bundle_path, monkeypatch, capsys):
    [example] = re.findall(r"^```python\n(.*?)^```$", document("docs/bundle-format.md"), re.DOTALL | re.MULTILINE)
    monkeypatch.setattr(sys, "argv", ["version.py", str(causal_bundle_path)])
    exec(compile(example, "docs/bundle-format.md", "exec"), {})
    stated, computed = capsys.readouterr().out.split()
    assert stated == computed


def test_every_problem_is_documented_with_its_status_and_code():
    page = document("docs/serving.md")
    for kind in (*KINDS.values(), INTERNAL):
        assert f"| {kind.status} | `{kind.code}` |" in page


def test_every_metric_is_documented():
    page = document("docs/serving.md")
    for family in Metrics().registry.collect():
        if family.name.startswith("genrec_"):
            assert f"`{family.name}" in page


def test_every_command_stage_and_recipe_is_documented_and_there():
    pages = document("docs/serving.md") + document("docs/training.md")
    entry_points = tomllib.loads(document("pyproject.toml"))["project"]["entry-points"]["genrec.commands"]
    for command, target in entry_points.items():
        assert f"`genrec {command}" in pages
        module, _, function = target.partition(":")
        assert callable(getattr(import_module(module), function)), target
    for number, stage in enumerate(STAGES, start=1):
        assert f"| {number} | `{stage.name}` | {', '.join(stage.needs) or 'the data'} |" in document("docs/training.md")
    for recipe in builtin_recipes():
        assert f"| `{recipe}` |" in document("docs/training.md")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_relative_links_lead_somewhere(path):
    text = path.read_text(encoding="utf-8")
    for target in LINK.findall(without_code(text)):
        if "://" in target or target.startswith("mailto:"):
            continue
        file, _, anchor = target.partition("#")
        linked = path if not file else (path.parent / file).resolve()
        assert linked.exists(), target
        if anchor and linked.suffix == ".md":
            assert anchor in anchors(linked.read_text(encoding="utf-8")), target


def test_decisions_are_numbered_and_have_their_four_parts():
    files = sorted((ROOT / "docs/decisions").glob("*.md"))
    numbers = [file.name[:4] for file in files]
    assert numbers == [f"{number:04d}" for number in range(1, len(files) + 1)]
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert text.startswith(f"# {file.name[:4]}: "), file.name
        assert re.findall(r"^## (\w+)", text, re.MULTILINE)[:4] == ADR_PARTS, file.name


def test_what_ci_runs_is_a_script_of_ours_and_no_hosted_file():
    assert (ROOT / ".ci/run").is_file()
    hosted = (".github", ".gitlab-ci.yml", ".circleci", ".travis.yml", "azure-pipelines.yml", "Jenkinsfile")
    assert not [name for name in hosted if (ROOT / name).exists()]
