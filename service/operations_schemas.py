"""The wire types of probes and facts."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from service.schemas import BundleName


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True)


class Status(_Told):
    """One word on how the service does."""

    status: str


class Limits(_Told):
    """What a request may ask for."""

    max_k: int
    max_history_items: int = Field(description="More is refused.")
    history_items_used: int = Field(description="The newest that many known items are read.")
    max_candidates: int = Field(description="Of a request to score; more are refused.")
    max_proof_beams: int = Field(description="How wide a search may become to prove its answer; 0: none is proven.")
    max_batch_requests: int
    max_queue_rows: int = Field(description="Beam rows waiting or being answered; more is told to come later.")
    max_batch_rows: int = Field(description="Beam rows that the model takes at once.")
    max_body_bytes: int
    default_timeout_ms: int


class Info(_Told):
    """What is served, where it runs and what it allows."""

    service_version: str
    bundle: BundleName
    created_at: str
    architecture: str
    num_levels: int
    codebook_sizes: list[int]
    num_items: int
    catalog_version: int = Field(description="Grows with every change of which items are off.")
    items_off: int = Field(description="Never answered, until they are switched on again.")
    columns: dict[str, str] = Field(description="Metadata column and its type.")
    num_beams: int
    exclude_history: bool
    length_penalty: float
    device: str
    dtype: str
    engine: str
    limits: Limits


class Estimate(_Told):
    """A mean over users with its interval."""

    value: float
    low: float
    high: float


class Measured(_Told):
    """A method and what it reached: metric -> estimate."""

    name: str
    metrics: dict[str, Estimate]


class Evaluation(_Told):
    """The bundle beside its baselines, on test users."""

    users: int
    methods: list[Measured]
    protocol: dict[str, Any]
    coverage: dict[str, int] = Field(description="Distinct items recommended, and items there are.")


class ModelCard(_Told):
    """What is known of the bundle that is served."""

    bundle: BundleName
    provenance: dict[str, Any] = Field(description="Where it comes from, as its manifest says.")
    evaluation: Evaluation | None = Field(description="Null for a bundle that was not measured.")
    card: str | None = Field(description="Its README, in Markdown.")
