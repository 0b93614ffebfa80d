"""The wire types of probes and facts."""

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
    max_queue_requests: int
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
