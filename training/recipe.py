"""A recipe: how a bundle is trained, from one TOML file, overridden by flags, frozen.

Reads, checks and writes recipes. Knows nothing of what a section means to its stage.
"""

import difflib
import tomllib
import typing
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Self

import tomli_w
from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from genrec.errors import RecipeError, one_line
from training.recipe_data import Embed, Prepare, Section
from training.recipe_model import (
    SMALL_LLAMA,
    TASK_TYPES,
    Base,
    BundleFacts,
    Evaluate,
    Finetune,
    Merge,
    Model,
    Pretrain,
    PromptText,
)
from training.recipe_quantize import Quantize


class Recipe(Section):
    """Everything that fixes a training run. The order of the fields is the order of the stages.

    Attributes:
        name: Of the bundle; letters, digits, dot, dash and underscore.
        seed: Of everything drawn at random.
        base: A bundle to go on from.
        prepare: Data, filters, split.
        embed: Item vectors.
        quantize: Codes.
        model: The language model.
        prompt: How a history becomes input ids.
        pretrain: Fitting all parameters first, if given.
        finetune: LoRA, or all parameters.
        merge: Which adapter is merged.
        evaluate: Measuring.
        bundle: Defaults that the bundle carries.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    base: Base | None = None
    prepare: Prepare
    embed: Embed = Embed()
    quantize: Quantize = Quantize()
    model: Model = Model(config=SMALL_LLAMA)
    prompt: PromptText = PromptText()
    pretrain: Pretrain | None = None
    finetune: Finetune = Finetune()
    merge: Merge = Merge()
    evaluate: Evaluate = Evaluate()
    bundle: BundleFacts = BundleFacts()

    @model_validator(mode="after")
    def _windows_are_causal(self) -> Self:
        for name in ("pretrain", "finetune"):
            fitting = getattr(self, name)
            if fitting is not None and fitting.examples == "window" and self.model.architecture != "causal":
                raise ValueError(f'{name}.examples = "window" needs model.architecture = "causal"; use "last"')
        return self

    @model_validator(mode="after")
    def _task_is_that_of_the_architecture(self) -> Self:
        named, right = self.finetune.lora.task_type, TASK_TYPES[self.model.architecture]
        if named not in (None, right):
            raise ValueError(
                f'finetune.lora.task_type = "{named}", but model.architecture = "{self.model.architecture}" means '
                f'"{right}"; leave task_type out, or change one of them'
            )
        return self

    @model_validator(mode="after")
    def _a_semantic_start_has_vectors(self) -> Self:
        if self.model.semantic_start is not None and not self.embed.parts:
            raise ValueError("model.semantic_start begins at the vectors of items; name some in embed.parts")
        return self

    @model_validator(mode="after")
    def _something_says_when_to_stop(self) -> Self:
        if self.prepare.held_out_for_validation:
            return self
        for name in ("pretrain", "finetune"):
            fitting = getattr(self, name)
            if fitting is not None and fitting.stop_at_epoch is None:
                raise ValueError(
                    f"[prepare] leaves no validation to stop {name} by; hold some out (and use --refit for a bundle of "
                    f"all interactions), or set {name}.stop_at_epoch"
                )
        if self.evaluate.sasrec is not None:
            raise ValueError("[prepare] leaves no validation to stop [evaluate.sasrec] by; hold some out, or remove it")
        return self

    @model_validator(mode="after")
    def _bundle_answers_what_is_measured(self) -> Self:
        if max(self.evaluate.cutoffs) > self.bundle.max_k:
            raise ValueError(
                f"evaluate.cutoffs asks for {max(self.evaluate.cutoffs)} items, but bundle.max_k is {self.bundle.max_k}"
            )
        return self


def load_recipe(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file or a built-in recipe and lay the overrides over it.

    Args:
        source: Path of a TOML file, or the name of a built-in recipe such as ``demo``.
        overrides: ``section.key=value``; the value is read as TOML, and as a plain string if it is not TOML.

    Raises:
        RecipeError: No such recipe, not TOML, an unknown key or a value that is not allowed.
    """
    table = _parse(_read(source), str(source))
    for override in overrides:
        _override(table, override)
    try:
        return Recipe.model_validate(table)
    except ValidationError as error:
        raise RecipeError(f"recipe {source}: {_sentence(error.errors(include_url=False))}") from error


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as TOML, defaults included; `load_recipe` reads it back to an equal recipe."""
    return tomli_w.dumps(recipe.model_dump(mode="json", exclude_none=True))


def builtin_recipes() -> tuple[str, ...]:
    """Names of the recipes that come with the package."""
    folder = resources.files("training") / "recipes"
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")))


def _read(source: str | Path) -> str:
    """The text of a recipe file, or of a built-in one when `source` is a bare name and no such file exists."""
    path = Path(source)
    if not path.is_file():
        if str(source) in builtin_recipes():
            return (resources.files("training") / "recipes" / f"{source}.toml").read_text(encoding="utf-8")
        raise RecipeError(
            f"recipe {str(source)!r} is neither a file (looked in {Path.cwd()}) nor a built-in recipe"
            f"{_nearest(str(source), builtin_recipes(), ': built in are')}"
        )
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe {source} cannot be read: {one_line(error)}") from error


def _parse(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"recipe {source} is not TOML: {one_line(error)}") from error


def _override(table: dict[str, Any], override: str) -> None:
    """Set one ``a.b=c`` in the nested table, in place."""
    dotted, equals, text = override.partition("=")
    keys = [key.strip() for key in dotted.split(".")]
    if not equals or not all(keys):
        raise RecipeError(f"override {override!r} is not of the form section.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    for depth, key in enumerate(keys[:-1], start=1):
        inner = table.setdefault(key, {})
        if not isinstance(inner, dict):
            raise RecipeError(f"override {override!r}: {'.'.join(keys[:depth])} is a value, not a section")
        table = inner
    table[keys[-1]] = value


def _sentence(errors: Sequence[ErrorDetails]) -> str:
    """One sentence for one error: which key, where, and what would be right. A misspelt key explains a missing one."""
    first = min(errors, key=lambda error: error["type"] != "extra_forbidden")
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    *parents, last = (str(part) for part in first["loc"]) if first["loc"] else [""]
    section = f"[{'.'.join(parents)}]" if parents else "the recipe's top level"
    dotted = ".".join([*parents, last])
    match first["type"]:
        case "extra_forbidden":
            keys = tuple(_keys_of(first["loc"][:-1]))
            return f"unknown key {last!r} in {section}{_nearest(last, keys, '; allowed are')}{more}"
        case "missing":
            return f"{section} lacks the key {last!r}{more}"
        case "literal_error":
            return f"{dotted} = {first['input']!r} is not allowed; allowed: {first['ctx']['expected']}{more}"
        case "value_error":
            return f"{dotted}: {first['ctx']['error']}{more}" if dotted else f"{first['ctx']['error']}{more}"
    rule = first["msg"][0].lower() + first["msg"][1:].replace("tuple", "list")
    return f"{dotted} = {first['input']!r} is not allowed: {rule}{more}"


def _nearest(name: str, names: Sequence[str], otherwise: str) -> str:
    """The rest of a sentence: the nearest name, or all of them."""
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"; the nearest valid name is {close[0]!r}"
    return f"{otherwise} {', '.join(names)}"


def _keys_of(location: Sequence[int | str]) -> Iterator[str]:
    """Valid keys of the section at `location`, found by walking the annotations of `Recipe`."""
    section: type[BaseModel] | None = Recipe
    for part in location:
        field = section.model_fields.get(str(part)) if section else None
        if field is not None:
            section = _section_type(field.annotation)
    yield from section.model_fields if section else ()


def _section_type(annotation: object) -> type[BaseModel] | None:
    """The section class inside an annotation such as ``ItemsSource | None`` or ``dict[str, MetadataColumn]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in typing.get_args(annotation):
        found = _section_type(inner)
        if found is not None:
            return found
    return None


def as_table(section: object) -> Any:  # noqa: ANN401  (plain JSON values)
    """A section, or a tuple or mapping of sections, as plain JSON values: what a stage's key is made of."""
    if isinstance(section, BaseModel):
        return section.model_dump(mode="json")
    if isinstance(section, Mapping):
        return {str(key): as_table(value) for key, value in section.items()}
    if isinstance(section, tuple | list):
        return [as_table(value) for value in section]
    return section
