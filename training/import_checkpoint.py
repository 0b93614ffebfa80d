"""`genrec import`: a bundle from a checkpoint, tokenizer and codes that were trained elsewhere.

Nothing is trained and no weight is touched; the bundle then proves itself like any other. Knows the prompt file.
"""

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from transformers import PreTrainedTokenizerBase

from genrec.bundle import Generation, Manifest, PromptPieces, load_draft, write_draft
from genrec.bundle import seal as seal_bundle
from genrec.bundle.manifest import NAME_PATTERN
from genrec.bundle.write import check_target
from genrec.errors import DataError, InputError, one_line
from genrec.golden import measure_reduced
from genrec.models import check_config, load_model, load_tokenizer
from genrec.requests import Request
from genrec.semantic_id import Catalog
from training.import_codes import OnCollision, Reassigned, read_imported_codes
from training.prepare_read import read_items
from training.prepare_write import plain_table
from training.progress import Progress
from training.recipe_data import ItemsSource
from training.seal import answer_golden, scored_lists
from training.sources import scan
from training.vocabulary import decoder_prefix, generation_ids, input_names, save_checkpoint

GOLDEN_HISTORIES = 16
_GOLDEN_ITEMS = 5


Token = str | Annotated[int, Field(ge=0, strict=True)]


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

    prefix: tuple[Token, ...] = ()
    separator: tuple[Token, ...] = ()
    suffix: tuple[Token, ...] = ()
    max_history_items: Annotated[int, Field(ge=1)] = 20
    spelling: str = "<{letter}_{code}>"
    num_beams: Annotated[int, Field(ge=1)] = 20
    length_penalty: Annotated[float, Field(ge=0, le=8)] = 1.0
    max_k: Annotated[int, Field(ge=1)] = 100
    exclude_history: bool = True

    @field_validator("spelling")
    @classmethod
    def _spells_codes(cls, spelling: str) -> str:
        try:
            spelled = {spelling.format(letter="a", level=0, code=code) for code in (0, 1)}
        except (LookupError, ValueError, AttributeError) as error:
            raise ValueError("it may hold {letter}, {level} and {code} in braces, and no others") from error
        if len(spelled) < 2:
            raise ValueError("it must hold {code}, or all codes of a level are one token")
        return spelling


def import_checkpoint(
    parts: Imported, output: Path, *, name: str, on_collision: OnCollision, replace: bool, progress: Progress
) -> Manifest:
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
    architecture: Literal["seq2seq", "causal"] = (
        "seq2seq" if check_config(parts.model).get("is_encoder_decoder") else "causal"
    )
    table = read_items(scan(str(parts.items)), ItemsSource(path=str(parts.items)))
    ids = table.get_column("item_id").to_list()
    known = tokenizer.get_vocab()
    codes = read_imported_codes(parts.codes, ids, prompt.spelling, known, on_collision)
    for note in codes.notes:
        progress.say(note)
    catalog = Catalog(
        pa.array(ids, pa.string()), codes.codes, np.zeros(len(ids), dtype=np.int64), plain_table(table.drop("item_id"))
    )
    manifest = Manifest(
        name=name,
        architecture=architecture,
        num_levels=catalog.num_levels,
        codebook_sizes=tuple(map(len, codes.token_ids)),
        item_token_ids=codes.token_ids,
        prompt=PromptPieces(
            prefix_ids=_ids(prompt.prefix, known),
            item_separator_ids=_ids(prompt.separator, known),
            suffix_ids=_ids(prompt.suffix, known),
            max_history_items=prompt.max_history_items,
        ),
        decoder_prefix_ids=decoder_prefix(parts.model, architecture),
        generation=Generation(
            **{key: getattr(prompt, key) for key in ("num_beams", "length_penalty", "max_k", "exclude_history")}
        ),
        model_inputs=input_names(parts.model),
        dtype="float32",
        provenance={
            "base_model": parts.model.name,
            "method": "imported",
            **({"reassigned_items": len(codes.reassigned)} if codes.reassigned else {}),
        },
    )
    extra: dict[str, Path | str] = {
        "README.md": _card(manifest, len(catalog), codes.reassigned),
        "training/prompt.json": _json(json.loads(parts.prompt.read_text(encoding="utf-8"))),
    }
    if codes.reassigned:
        extra["training/reassigned.json"] = _json([asdict(item) for item in codes.reassigned])
    with tempfile.TemporaryDirectory() as scratch:
        _write_draft(Path(scratch), manifest, catalog, parts.model, tokenizer)
        return _prove_and_seal(Path(scratch) / "draft", output, extra, replace=replace)


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


def _ids(tokens: Sequence[str | int], known: Mapping[str, int]) -> tuple[int, ...]:
    missing = next((token for token in tokens if isinstance(token, str) and token not in known), None)
    if missing is not None:
        raise DataError(f"the prompt file names {missing!r}, which is not a token of the tokenizer.")
    return tuple(token if isinstance(token, int) else known[token] for token in tokens)


def _write_draft(
    scratch: Path, manifest: Manifest, catalog: Catalog, checkpoint: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    model = load_model(checkpoint, manifest.architecture)
    model.config.use_cache = True
    model.generation_config = generation_ids(model.config)
    save_checkpoint(model, tokenizer, scratch / "model")
    write_draft(scratch / "draft", manifest, catalog, scratch / "model")


def _prove_and_seal(draft: Path, output: Path, extra: Mapping[str, Path | str], *, replace: bool) -> Manifest:
    """Golden answers over made-up histories, in both dtypes, then the seal."""
    bundle = load_draft(draft, dtype="float32")
    catalog = bundle.catalog
    rng = np.random.default_rng(0)
    size = min(_GOLDEN_ITEMS, len(catalog))
    requests = [
        Request(
            [catalog.item_id(int(row)) for row in rng.choice(len(catalog), size=size, replace=False)],
            k=min(10, bundle.manifest.generation.max_k),
            exclude_history=place % 2 == 0,
        )
        for place in range(GOLDEN_HISTORIES)
    ]
    golden = answer_golden(bundle, requests)
    reduced = load_draft(draft, dtype="bfloat16")
    allowance = measure_reduced(reduced, golden, scored_lists(reduced, requests)).allowance
    lines = "".join(answer.to_json() + "\n" for answer in golden)
    return seal_bundle(draft, output, extra={**extra, "golden.jsonl": lines}, golden=allowance, replace=replace)


def _json(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def _card(manifest: Manifest, num_items: int, reassigned: Sequence[Reassigned]) -> str:
    moved = (
        f"{len(reassigned):,} items shared their semantic ID with another and have a last code here that the "
        "checkpoint was not trained with; `training/reassigned.json` lists them. "
    )
    return (
        f"# {manifest.name}\n\nA bundle of genrec, imported from the checkpoint `{manifest.provenance['base_model']}`: "
        f"{manifest.architecture}, {num_items:,} items, {manifest.num_levels} levels of "
        f"{', '.join(map(str, manifest.codebook_sizes))} codes. {moved if reassigned else ''}It was not evaluated "
        "here: `genrec evaluate` does that, given prepared interactions.\n"
    )
