"""The bundle's own card over HTTP."""

from fastapi import APIRouter

from service.model_card import read_model_card
from service.operations_schemas import ModelCard
from service.state import StateOf

router = APIRouter(tags=["operations"])


# A plain function: the framework runs it in its thread pool, where reading two small files holds nobody up.
@router.get("/v1/bundle", summary="How good the bundle was measured to be, and its card")
def bundle(state: StateOf) -> ModelCard:
    """Its provenance, its evaluation beside the baselines, and its README; null for what it does not have."""
    loaded = state.inference.recommender.bundle
    return read_model_card(loaded.path, loaded.manifest)
