"""The settings of the service: how to serve, never what. Read once, frozen, units in names.

They come from `GENREC_*` variables and from flags, flags first. This is the one place of the service that reads the
environment.
"""

import difflib
import os
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from genrec.errors import InputError
from service.schemas import MAX_LIST_ITEMS

PREFIX = "GENREC_"
_NOT_OURS = ["GENREC_CACHE_DIR"]
"""Variables of the same family that training reads; set for a whole shell, they are no mistake here."""


class Settings(BaseSettings):
    """How to serve. Every field is a variable, `GENREC_` and its name in capitals."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid")

    bundle: Path = Field(description="The bundle to serve, a directory.")
    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=8000, ge=0, le=65_535, description="0 takes a free one.")
    expect_version: str | None = Field(
        default=None, pattern=r"^[0-9a-f]{12}$", description="The one version to serve; every other bundle is refused."
    )
    bundles_dir: Path | None = Field(
        default=None, description="Where the bundles are that may be reloaded; the parent of the bundle unless set."
    )
    auth: Literal["", "open"] = Field(default="", description='"open" lets anyone in who can reach the address.')
    api_keys_file: Path | None = Field(
        default=None, description="Holds API keys, one a line; all but the probes needs one of them then."
    )
    metrics_token_file: Path | None = Field(default=None, description="Holds tokens that open /metrics alone.")

    state_dir: Path | None = Field(
        default=None, description="Where what was switched off and on is kept; one service each."
    )
    admin_listen: str = Field(
        default="",
        pattern=r"^(|((\[[0-9A-Fa-f:.]+\]|[^\[\]:/\s]+):)?[0-9]{1,5})$",
        description="ADDRESS:PORT, or PORT on 127.0.0.1, for administrators; empty for none.",
    )
    admin_token_file: Path | None = Field(default=None, description="Holds the administrators' tokens, one a line.")

    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    dtype: str = Field(default="auto", min_length=1)
    engine: str = Field(default="auto", min_length=1)

    threads: int = Field(
        default_factory=lambda: _default_threads(), ge=1, description="Of the model on a CPU; a core is left to HTTP."
    )
    max_queue_rows: int = Field(
        default=16_384, ge=1, description="Beam rows admitted and not yet answered; more are told 429."
    )
    max_batch_rows: int = Field(
        default=1_024, ge=1, description="Beam rows given to the model at once; bounds its memory, and its silence."
    )
    max_linger_ms: float = Field(
        default=2, ge=0, le=100, description="How long the model waits at most for more requests to take together."
    )
    max_batch_requests: int = Field(default=64, ge=1, description="In one call of /v1/recommend/batch.")
    max_history_items: int = Field(default=1_000, ge=1, le=MAX_LIST_ITEMS, description="Longer histories are told 422.")
    max_candidates: int = Field(
        default=MAX_LIST_ITEMS, ge=1, le=MAX_LIST_ITEMS, description="In one call of /v1/score; more are told 422."
    )
    max_proof_beams: int = Field(
        default=1_024, ge=0, description="How wide a search may become to prove its answer; 0 refuses to prove."
    )
    max_body_bytes: int = Field(default=256 * 1024, ge=1_024)
    max_json_depth: int = Field(default=32, ge=4, le=200)
    default_timeout_ms: int = Field(default=10_000, ge=1, le=600_000, description="For requests that name none.")

    max_connections: int = Field(default=1_024, ge=1, description="Open at once on a listener; more are told 503.")
    header_timeout_ms: int = Field(default=10_000, ge=50, description="For the head of a request to come whole.")
    receive_timeout_ms: int = Field(default=30_000, ge=50, description="For a request to come whole.")
    keep_alive_timeout_ms: int = Field(default=5_000, ge=50, description="For the next request of a connection.")
    write_timeout_ms: int = Field(default=30_000, ge=50, description="For a client to take 16 KiB of its answer.")

    stall_timeout_ms: int = Field(
        default=1_500, ge=50, description="Inference silent for so long: /ready says 503 until it returns."
    )
    watchdog_timeout_ms: int = Field(
        default=30_000, ge=100, description="Inference silent for so long: it hangs, the process exits 70."
    )
    drain_delay_ms: int = Field(
        default=3_000, ge=0, description="How long requests are accepted after SIGTERM, while /ready says 503."
    )
    drain_timeout_ms: int = Field(default=30_000, ge=0, description="How long a stop waits for open requests.")

    log_format: Literal["auto", "json", "console"] = Field(
        default="auto", description="auto: console on a terminal, else one JSON object a line."
    )
    docs: bool = Field(default=True, description="Serve /docs and /openapi.json.")
    ui: Literal["on", "off", "open"] = Field(
        default="on", description="The playground at /ui/. open: its pages, which hold no data, need no key."
    )

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.max_batch_requests > self.max_queue_rows:
            raise ValueError(
                f"max_batch_requests is {self.max_batch_requests} but the queue holds {self.max_queue_rows} beam rows: "
                "such a batch could never be admitted; raise max_queue_rows or lower max_batch_requests"
            )
        if self.stall_timeout_ms >= self.watchdog_timeout_ms:
            raise ValueError(
                f"stall_timeout_ms is {self.stall_timeout_ms} but the process exits after watchdog_timeout_ms, "
                f"{self.watchdog_timeout_ms}: /ready would never tell; raise watchdog_timeout_ms"
            )
        if self.header_timeout_ms > self.receive_timeout_ms:
            raise ValueError(
                f"header_timeout_ms is {self.header_timeout_ms} but a whole request must come within "
                f"receive_timeout_ms, {self.receive_timeout_ms}; raise receive_timeout_ms or lower header_timeout_ms"
            )
        if self.api_keys_file is not None and self.auth == "open":
            raise ValueError(
                "auth is open but api_keys_file is set, so it is not clear whether anyone may come in; "
                "unset GENREC_AUTH to ask for keys, or unset GENREC_API_KEYS_FILE to let anyone in"
            )
        if self.auth != "open" and self.api_keys_file is None and not is_loopback(self.host):
            raise ValueError(
                f"the host is {self.host} and the service knows no keys, so anyone who can reach that address could "
                "use it; set GENREC_API_KEYS_FILE to a file of keys, serve on 127.0.0.1, or set GENREC_AUTH=open to "
                "allow it"
            )
        return self

    @model_validator(mode="after")
    def _administrable(self) -> Self:
        if self.admin_address is None:
            if self.admin_token_file is not None:
                raise ValueError(
                    "admin_token_file is set but admin_listen is not, so nobody could use a token; "
                    "set GENREC_ADMIN_LISTEN, such as 127.0.0.1:8001, or unset GENREC_ADMIN_TOKEN_FILE"
                )
            return self
        if self.admin_token_file is None:
            raise ValueError(
                "admin_listen is set but admin_token_file is not, so anyone could administer the service; "
                "set GENREC_ADMIN_TOKEN_FILE to a file with a token, or unset GENREC_ADMIN_LISTEN"
            )
        if self.state_dir is None:
            raise ValueError(
                "admin_listen is set but state_dir is not, so a restart would forget what administrators changed; "
                "set GENREC_STATE_DIR to a directory, or unset GENREC_ADMIN_LISTEN"
            )
        port = self.admin_address[1]
        if port > 65_535 or (port and port == self.port):
            raise ValueError(
                f"admin_listen names port {port}, which must be at most 65535 and another than the service's own; "
                "change GENREC_ADMIN_LISTEN"
            )
        return self

    @property
    def shelf(self) -> Path:
        """The directory of bundles."""
        return self.bundles_dir or self.bundle.absolute().parent

    @property
    def admin_address(self) -> tuple[str, int] | None:
        """Host and port of the admin listener, None if there is none. Port 0 takes a free one."""
        if not self.admin_listen:
            return None
        host, _, port = self.admin_listen.rpartition(":")
        return host.strip("[]") or "127.0.0.1", int(port)

    @property
    def url(self) -> str:
        """Where a browser on this machine finds the service."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104  (compared, not bound)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _default_threads() -> int:
    """What OpenMP was told, of which a list is one number a level of nesting; a core less than there are, otherwise."""
    outermost = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # noqa: TID251
    return int(outermost) if outermost.isdecimal() else max(1, len(os.sched_getaffinity(0)) - 1)


def read_settings(flags: Mapping[str, Any]) -> Settings:
    """Settings from the environment, with `flags` (those that are not None) winning.

    Raises:
        InputError: an unknown `GENREC_*` name, a value that does not fit, or settings that contradict each other.
    """
    _refuse_unknown_names(os.environ)  # noqa: TID251  this is the one place
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        raise InputError(_sentence(error.errors(include_url=False)[0])) from error


class _GivenSettings(Settings):
    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: object, **__: object
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


def given_settings(values: Mapping[str, Any]) -> Settings:
    """Settings from plain values alone, whatever the environment of this machine says.

    Raises:
        InputError: as `read_settings`.
    """
    try:
        return _GivenSettings(**values)
    except ValidationError as error:
        raise InputError(_sentence(error.errors(include_url=False)[0])) from error


def _refuse_unknown_names(environment: Mapping[str, str]) -> None:
    # pydantic-settings checks only the names in a .env file: GENREC_PROT=9000 would serve on 8000 without a word.
    known = [PREFIX + name.upper() for name in Settings.model_fields] + _NOT_OURS
    for name in sorted(environment):
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            nearest = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0)[0]
            raise InputError(f"the environment sets {name}, which is no setting; the nearest is {nearest}.")


def _sentence(error: ErrorDetails) -> str:
    message = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:
        return f"{message}."
    name = str(error["loc"][0])
    flag, variable = name.replace("_", "-"), PREFIX + name.upper()
    if error["type"] == "missing":
        return f"the setting {name} is missing; give --{flag} or set {variable}."
    return f"the setting {name} ({variable}) cannot be {error['input']!r}: {message}."
