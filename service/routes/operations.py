"""Probes, facts and numbers for those who run the service."""

from importlib.metadata import version

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from service.docs_page import CONTENT_SECURITY_POLICY, docs_page
from service.errors import NotReady
from service.operations_schemas import Info, Limits, Status
from service.state import StateOf
from service.translation import bundle_name

router = APIRouter(tags=["operations"])
docs_router = APIRouter()


@router.get("/health", summary="The process lives")
async def health() -> Status:
    """200 while the process answers at all, also while it loads."""
    return Status(status="ok")


@router.get("/ready", summary="It can answer")
async def ready(state: StateOf) -> Status:
    """200 only while requests can be answered: loaded, golden answers replayed, engine alive and not stalled."""
    if state.inference.state != "ready":
        raise NotReady(f"The service is not ready: {state.inference.state}.")
    return Status(status="ready")


@router.get("/info", summary="What is served, and what it allows")
async def info(state: StateOf) -> Info:
    """The bundle, the device, the catalog's columns and the limits of a request."""
    recommender, settings = state.inference.recommender, state.settings
    manifest, catalog = recommender.bundle.manifest, recommender.bundle.catalog
    return Info(
        service_version=version("genrec"),
        bundle=bundle_name(recommender),
        created_at=str(manifest.created_at),
        architecture=manifest.architecture,
        num_levels=manifest.num_levels,
        codebook_sizes=list(manifest.codebook_sizes),
        num_items=len(catalog),
        catalog_version=recommender.availability.version,
        items_off=recommender.availability.items_off,
        columns=dict(catalog.columns),
        num_beams=manifest.generation.num_beams,
        exclude_history=manifest.generation.exclude_history,
        length_penalty=manifest.generation.length_penalty,
        device=recommender.device,
        dtype=recommender.dtype,
        engine=recommender.engine_name,
        limits=Limits(
            max_k=manifest.generation.max_k,
            max_history_items=settings.max_history_items,
            history_items_used=manifest.prompt.max_history_items,
            max_candidates=settings.max_candidates,
            max_proof_beams=recommender.max_proof_beams,
            max_batch_requests=settings.max_batch_requests,
            max_queue_rows=settings.max_queue_rows,
            max_batch_rows=settings.max_batch_rows,
            max_body_bytes=settings.max_body_bytes,
            default_timeout_ms=settings.default_timeout_ms,
        ),
    )


@router.get("/metrics", summary="Numbers for Prometheus", response_class=Response)
async def metrics(state: StateOf) -> Response:
    """The exposition format."""
    return Response(state.metrics.text(), media_type=CONTENT_TYPE_LATEST)


@docs_router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> Response:
    """The interface for people: one page without scripts, made from /openapi.json."""
    page = docs_page(request.app.openapi())
    headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY}
    return Response(page, media_type="text/html; charset=utf-8", headers=headers)
