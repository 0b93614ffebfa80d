"""The manifest: the facts that training fixed. The service reads them and never overrides one."""

import hashlib
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from genrec.bundle import layout
from genrec.errors import BundleError, DataError, InputError, one_line
from genrec.history import Prompt
from genrec.item_tokens import ItemTokens

FORMAT_VERSION: Literal[1] = 1
DRAFT = "draft"
"""The version of a bundle that is not sealed yet."""

MAX_BYTES = 64 << 20
"""Of a manifest's file: room for five million item tokens."""

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_VERSION = re.compile(r"[0-9a-f]{12}")
_ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class PromptPieces(_Facts):
    """How a history becomes input ids; see `genrec.history.Prompt`."""

    prefix_ids: tuple[TokenId, ...] = ()
    item_separator_ids: tuple[TokenId, ...] = ()
    suffix_ids: tuple[TokenId, ...] = ()
    max_history_items: Annotated[int, Field(ge=1)] = 20
    order: Literal["oldest_first"] = "oldest_first"

    @property
    def prompt(self) -> Prompt:
        """The same as the encoder takes it."""
        return Prompt(**self.model_dump())


class Generation(_Facts):
    """Defaults of a search. `max_k` bounds what a request may ask for; the beam is at least k wide."""

    num_beams: Annotated[int, Field(ge=1)] = 20
    length_penalty: Annotated[float, Field(ge=0, le=8)] = 1.0
    max_k: Annotated[int, Field(ge=1)] = 100
    exclude_history: bool = True


class Golden(_Facts):
    """How closely golden.jsonl must be met.

    Served in float32 the lists must match and scores lie within `score_tolerance`. In a shorter dtype the golden items
    are rescored and must lie within `reduced_tolerance`, and lists overlap by at least `reduced_overlap` on average.
    """

    score_tolerance: Annotated[float, Field(gt=0)] = 1e-4
    reduced_tolerance: Annotated[float, Field(gt=0)] = 0.25
    reduced_overlap: Annotated[float, Field(ge=0, le=1)] = 0.5


class FileFacts(_Facts):
    """Size and content of one file."""

    bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Manifest(_Facts):
    """manifest.json of format version 1; the keys are described in docs/bundle-format.md."""

    format_version: Literal[1] = FORMAT_VERSION
    name: Name
    version: str = DRAFT
    created_at: str = ""
    architecture: Literal["seq2seq", "causal"]
    num_levels: Annotated[int, Field(ge=1)]
    codebook_sizes: tuple[Annotated[int, Field(ge=1)], ...]
    item_token_ids: tuple[tuple[TokenId, ...], ...]
    prompt: PromptPieces
    decoder_prefix_ids: tuple[TokenId, ...]
    generation: Generation = Generation()
    golden: Golden = Golden()
    model_inputs: tuple[str, ...] = ()
    dtype: Literal["float32", "bfloat16", "float16"]
    provenance: dict[str, Any] = {}
    files: dict[str, FileFacts] = {}

    @property
    def item_tokens(self) -> ItemTokens:
        """The token of each (level, code), checked.

        Raises:
            BundleError: a token stands for two codes, or the counts disagree with `codebook_sizes`.
        """
        try:
            tokens = ItemTokens(self.item_token_ids)
        except DataError as error:
            raise BundleError(f"manifest.json: {error}") from error
        if tokens.codebook_sizes != self.codebook_sizes or tokens.num_levels != self.num_levels:
            raise BundleError(
                f"manifest.json: item_token_ids has codebooks of {list(tokens.codebook_sizes)}, "
                f"but codebook_sizes says {list(self.codebook_sizes)} and num_levels {self.num_levels}."
            )
        return tokens

    @property
    def stored_weight_bytes(self) -> int:
        """Bytes of the files of weights."""
        model = f"{layout.MODEL}/"
        return sum(
            facts.bytes
            for name, facts in self.files.items()
            if name.startswith(model) and name.endswith(".safetensors")
        )

    def weight_bytes(self, dtype: str) -> int:
        """Bytes that the weights take once they are loaded as `dtype`, to within the headers of their files."""
        return self.stored_weight_bytes * _ITEM_BYTES[dtype] // _ITEM_BYTES[self.dtype]

    def loading_bytes(self, dtype: str) -> int:
        """Bytes of main memory that loading takes at its peak, without the catalog.

        The files are read whole; tensors of another dtype, or on another device, are made beside them.
        """
        converted = 0 if dtype == self.dtype else self.weight_bytes(dtype)
        return self.stored_weight_bytes + converted

    def to_json(self) -> str:
        """The text of manifest.json."""
        return json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def sealed(self, *, files: Mapping[str, FileFacts], created_at: str) -> "Manifest":
        """The same with its files, its date and the version that follows from its content."""
        content = self.model_dump(mode="json") | {"files": {name: facts.model_dump() for name, facts in files.items()}}
        return Manifest.model_validate_json(
            json.dumps(content | {"version": content_version(content), "created_at": created_at})
        )


def content_version(manifest: Mapping[str, Any]) -> str:
    """The identity of a bundle: short sha256 of its canonical manifest without `version` and `created_at`.

    Canonical: keys sorted, no blanks, ASCII. The hashes of all files are part of it.
    """
    content = {key: value for key, value in manifest.items() if key not in ("version", "created_at")}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:12]


def read_manifest(file: Path) -> Manifest:
    """Read and validate manifest.json.

    Raises:
        BundleError: unreadable, of a newer format, with a wrong or unknown key, or not what its version says.
    """
    with io.BufferedReader(layout.open_plain(file.parent, file.name)) as stream:
        try:
            content = stream.read(MAX_BYTES + 1)
            if len(content) > MAX_BYTES:
                raise BundleError(f"{file.name} is longer than {MAX_BYTES} bytes.")
            raw = json.loads(content)
        except (OSError, ValueError, RecursionError) as error:
            raise BundleError(f"{file.name} cannot be read: {one_line(error)}") from error
    if not isinstance(raw, dict):
        raise BundleError(f"{file.name} is not a JSON object.")
    if isinstance(raw.get("format_version"), int) and raw["format_version"] > FORMAT_VERSION:
        raise BundleError(
            f"{file.name} has format_version {raw['format_version']}; this version of genrec reads up to "
            f"{FORMAT_VERSION}. Upgrade genrec."
        )
    try:
        manifest = Manifest.model_validate_json(json.dumps(raw))
        version = content_version(raw)
    except (ValidationError, ValueError, RecursionError) as error:
        raise BundleError(f"{file.name}: {_first_problem(error)}") from error
    if manifest.version not in (DRAFT, version):
        raise BundleError(
            f"{file.name} states version {manifest.version!r}, but its content has version {version!r}: "
            "it was edited after it was sealed."
        )
    return manifest


def read_sealed_manifest(root: Path) -> Manifest:
    """The manifest of the bundle in `root`. It is written last: without it, the directory is no bundle yet.

    Raises:
        BundleError: there is none, it cannot be read, or is that of a draft.
    """
    if not root.is_dir():
        raise BundleError(f"{root} is not a directory; give the path of a bundle.")
    if not (root / layout.MANIFEST).is_file():
        raise BundleError(f"{root} has no {layout.MANIFEST}, so it is not a (finished) bundle.")
    manifest = read_manifest(root / layout.MANIFEST)
    if manifest.version == DRAFT:
        raise BundleError(f"{root} is a draft; seal it first.")
    return manifest


def check_version(manifest: Manifest, expected: str | None) -> None:
    """Refuse a bundle that is not the one that was meant; None expects nothing.

    The version follows from every byte of a bundle, and is compared whole: a prefix could fit two.

    Raises:
        InputError: `expected` is not a version.
        BundleError: the bundle has another.
    """
    if expected is None:
        return
    if _VERSION.fullmatch(expected) is None:
        raise InputError(f"{expected[:100]!r} is not the version of a bundle, which is 12 digits of 0-9 and a-f.")
    if manifest.version != expected:
        raise BundleError(f"the bundle has version {manifest.version}, but {expected} is expected.")


def _first_problem(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return one_line(error)
    first = error.errors(include_url=False, include_input=False)[0]
    return f"key {'.'.join(map(str, first['loc'])) or '(top)'}: {first['msg']}"
