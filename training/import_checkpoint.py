"""`genrec import`: a bundle from a checkpoint, tokenizer and codes that were trained elsewhere.

Nothing is trained and no weight is touched; the bundle then proves itself like any other. Knows the prompt file.
"""

import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_lowercase
from typing import Annotated, Literal, cast

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from transformers import PreTrainedTokenizerBase

from genrec.bundle import Generation, Manifest, PromptPieces, load_draft, write_draft
from genrec.bundle import seal as seal_bundle
from genrec.bundle.manifest import NAME_PATTERN
from genrec.bundle.write import check_target
from genrec.errors import DataError, InputError, one_line
from genrec.golden import measure_reduced
from genrec.models import check_config, load_model, load_tokenizer
from genrec.recommender import Request
from genrec.semantic_id import Catalog
from training.prepare_read import read_items
from training.quantize_given import GivenQuantizer
from training.quantizer import ItemVectors
from training.recipe_data import GivenCodes, ItemsSource
from training.seal import answer_golden, scored_lists
from training.sources import scan
from training.vocabulary import save_checkpoint

GOLDEN_HISTORIES = 16
_GOLDEN_ITEMS = 5


@dataclass(frozen=True, slots=True)
class Imported:
    """Where the parts are."""

    model: Path
    tokenizer: Path
    codes: Path
    items: Path
    prompt: Path


class PromptFile(BaseModel):
    """How the checkpoint was asked while it was trained.

    Attributes:
        prefix, separator, suffix: tokens by name, or ids.
        max_history_items: the newest that many items are kept.
        spelling: of the token of a numbered code, from ``{letter}`` (a for level 0), ``{level}`` and ``{code}``.
        num_beams, length_penalty, max_k, exclude_history: defaults of a search.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prefix: tuple[str | int, ...] = ()
    separator: tuple[str | int, ...] = ()
    suffix: tuple[str | int, ...] = ()
    max_history_items: Annotated[int, Field(ge=1)] = 20
    spelling: str = "<{letter}_{code}>"
    num_beams: Annotated[int, Field(ge=1)] = 20
    length_penalty: Annotated[float, Field(ge=0, le=8)] = 1.0
    max_k: Annotated[int, Field(ge=1)] = 100
    exclude_history: bool = True


def import_checkpoint(parts: Imported, output: Path, *, name: str, replace: bool) -> Manifest:
    """Write the bundle.

    Raises:
        DataError: a file cannot be read, or its codes, tokens and items do not fit together.
        BundleError: the checkpoint cannot be loaded strictly, or `output` is taken.
    """
    check_target(output, replace=replace)
    if not re.fullmatch(NAME_PATTERN, name):
        raise InputError(f"{name!r} cannot be a bundle's name; give --name of letters, digits, dot, dash, underscore.")
    prompt = read_prompt(parts.prompt)
    tokenizer = load_tokenizer(parts.tokenizer)
    config = check_config(parts.model)
    architecture: Literal["seq2seq", "causal"] = "seq2seq" if config.get("is_encoder_decoder") else "causal"
    table = read_items(scan(str(parts.items)), ItemsSource(path=str(parts.items)))
    ids = table.get_column("item_id").to_list()
    codes = GivenQuantizer(GivenCodes(path=str(parts.codes))).quantize(
        ItemVectors(ids, np.empty((len(ids), 0), dtype=np.float32))
    )
    catalog = Catalog(
        pa.array(ids, pa.string()), codes.codes, np.zeros(len(ids), dtype=np.int64), table.drop("item_id").to_arrow()
    )
    originals = cast("Sequence[Sequence[int | str] | None]", codes.description["original_codes"])
    known = tokenizer.get_vocab()
    manifest = Manifest(
        name=name,
        architecture=architecture,
        num_levels=catalog.num_levels,
        codebook_sizes=codes.sizes,
        item_token_ids=_item_token_ids(originals, codes.sizes, prompt.spelling, known),
        prompt=PromptPieces(
            prefix_ids=_ids(prompt.prefix, known),
            item_separator_ids=_ids(prompt.separator, known),
            suffix_ids=_ids(prompt.suffix, known),
            max_history_items=prompt.max_history_items,
        ),
        decoder_prefix_ids=(int(config["decoder_start_token_id"]),) if architecture == "seq2seq" else (),
        generation=Generation(
            **{key: getattr(prompt, key) for key in ("num_beams", "length_penalty", "max_k", "exclude_history")}
        ),
        dtype="float32",
        provenance={"base_model": parts.model.name, "method": "imported"},
    )
    with tempfile.TemporaryDirectory() as scratch:
        return _seal(Path(scratch), manifest, catalog, parts, tokenizer, output, replace=replace)


def read_prompt(file: Path) -> PromptFile:
    """The prompt file.

    Raises:
        DataError: it is not such a file.
    """
    try:
        return PromptFile.model_validate_json(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{file} cannot be read: {one_line(error)}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(
            f"{file}: {where or 'the file'}: {first['msg']}; keys are {', '.join(PromptFile.model_fields)}."
        ) from error


def _item_token_ids(
    originals: Sequence[Sequence[int | str] | None], sizes: Sequence[int], spelling: str, known: dict[str, int]
) -> tuple[tuple[int, ...], ...]:
    """The id of each dense code's token, by the spelling that it had where it was trained."""
    levels = []
    for level, (original, size) in enumerate(zip(originals, sizes, strict=True)):
        names = list(range(size)) if original is None else original
        tokens = [
            code if isinstance(code, str) else spelling.format(letter=ascii_lowercase[level], level=level, code=code)
            for code in names
        ]
        missing = next((token for token in tokens if token not in known), None)
        if missing is not None:
            raise DataError(
                f"the tokenizer has no token {missing!r} (level {level}); say how tokens are spelled with `spelling` "
                "in the prompt file, or give the codes as JSON of token strings."
            )
        levels.append(tuple(known[token] for token in tokens))
    return tuple(levels)


def _ids(tokens: Sequence[str | int], known: dict[str, int]) -> tuple[int, ...]:
    missing = next((token for token in tokens if isinstance(token, str) and token not in known), None)
    if missing is not None:
        raise DataError(f"the prompt file names {missing!r}, which is not a token of the tokenizer.")
    return tuple(token if isinstance(token, int) else known[token] for token in tokens)


def _seal(
    scratch: Path,
    manifest: Manifest,
    catalog: Catalog,
    parts: Imported,
    tokenizer: PreTrainedTokenizerBase,
    output: Path,
    *,
    replace: bool,
) -> Manifest:
    model = load_model(parts.model, manifest.architecture)
    model.config.use_cache = True
    save_checkpoint(model, tokenizer, scratch / "model")
    write_draft(scratch / "draft", manifest, catalog, scratch / "model")
    bundle = load_draft(scratch / "draft", dtype="float32")
    rng = np.random.default_rng(0)
    size = min(_GOLDEN_ITEMS, len(catalog))
    requests = [
        Request(
            [catalog.item_id(int(row)) for row in rng.choice(len(catalog), size=size, replace=False)],
            k=min(10, manifest.generation.max_k),
            exclude_history=place % 2 == 0,
        )
        for place in range(GOLDEN_HISTORIES)
    ]
    golden = answer_golden(bundle, requests)
    reduced = load_draft(scratch / "draft", dtype="bfloat16")
    allowance = measure_reduced(reduced, golden, scored_lists(reduced, requests)).allowance
    extra: dict[str, Path | str] = {
        "golden.jsonl": "".join(answer.to_json() + "\n" for answer in golden),
        "README.md": _card(manifest, len(catalog)),
        "training/prompt.json": json.dumps(json.loads(parts.prompt.read_text(encoding="utf-8")), indent=1) + "\n",
    }
    return seal_bundle(scratch / "draft", output, extra=extra, golden=allowance, replace=replace)


def _card(manifest: Manifest, num_items: int) -> str:
    return (
        f"# {manifest.name}\n\nA bundle of genrec, imported from the checkpoint `{manifest.provenance['base_model']}`: "
        f"{manifest.architecture}, {num_items:,} items, {manifest.num_levels} levels of "
        f"{', '.join(map(str, manifest.codebook_sizes))} codes. It was not evaluated here: "
        "`genrec evaluate` does that, given prepared interactions.\n"
    )
