"""The application: `create_app` puts settings, engine and routes together."""

import asyncio
import json
import os
import shlex
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from time import monotonic

import structlog
from fastapi import FastAPI

from genrec.errors import GenrecError
from genrec.recommender import Recommender
from service.catalog_switch import CatalogSwitch
from service.inference import InferenceThread
from service.metrics import Metrics
from service.middleware import ObserveRequests
from service.openapi import install_openapi
from service.refusals import install_refusals
from service.routes import items, operations, recommend, score
from service.settings import Settings
from service.state import ServiceState

log = structlog.stdlib.get_logger(__name__)

WATCH_INTERVAL_S = 0.25
FLUSH_S = 0.5
"""How long clients who were told 503 have to read it before the process ends."""


def create_app(
    settings: Settings,
    load: Callable[..., Recommender] = Recommender.load,
    end: Callable[[int], object] = os._exit,
) -> FastAPI:
    """The service as an ASGI application.

    Loading begins with its lifespan and goes on behind it: probes are answered meanwhile.

    Args:
        settings: how to serve.
        load: makes the recommender of a bundle; called in the inference thread.
        end: ends the process with an exit code, called when the service can answer no more: 65 for a refused bundle,
            70 for an engine that died or hangs.

    Raises:
        LockedError: another service holds the state directory.
        InputError: the state directory cannot be used, or what it holds is damaged.
    """
    catalog = CatalogSwitch.open(settings.state_dir) if settings.state_dir else None
    state = ServiceState(settings, _inference(settings, load, catalog), Metrics(), catalog)
    state.metrics.watch(lambda: state.inference.depth, lambda: state.inference.state == "ready", state.availability)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        state.inference.start()
        watch = asyncio.create_task(_watch(state, end))
        try:
            yield
        finally:
            watch.cancel()
            await asyncio.to_thread(state.inference.stop, settings.drain_timeout_ms / 1e3)
            if catalog is not None:
                await asyncio.to_thread(catalog.close)

    app = FastAPI(
        title="genrec",
        version=version("genrec"),
        description="Generative recommendation: a history of item ids in, the next items out.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json" if settings.docs else None,
        redirect_slashes=False,
    )
    app.state.service = state
    app.add_middleware(ObserveRequests, metrics=state.metrics)
    for router in (recommend.router, score.router, items.router, operations.router):
        app.include_router(router)
    if settings.docs:
        app.include_router(operations.docs_router)
    install_refusals(app, state.metrics.rejected)
    install_openapi(app)
    return app


def _inference(settings: Settings, load: Callable[..., Recommender], catalog: CatalogSwitch | None) -> InferenceThread:
    def load_as_it_was() -> Recommender:
        recommender = load(
            settings.bundle,
            device=settings.device,
            dtype=settings.dtype,
            engine=settings.engine,
            max_proof_beams=settings.max_proof_beams,
        )
        return recommender if catalog is None else catalog.restore(recommender)

    return InferenceThread(
        load_as_it_was,
        max_queue_requests=settings.max_queue_requests,
        max_inference_requests=settings.max_inference_requests,
        stall_timeout_s=settings.stall_timeout_ms / 1e3,
        hang_timeout_s=settings.watchdog_timeout_ms / 1e3,
    )


async def _watch(state: ServiceState, end: Callable[[int], object]) -> None:
    """Announce the service when it is ready; end the process when it can answer no more."""
    try:
        failure = await _failure(state)
        log.error("the service ends", reason=str(failure))
        await asyncio.sleep(FLUSH_S)
        end(failure.exit_code)
    except Exception:  # a watchdog that dies unseen guards nothing
        log.exception("the watchdog died")
        end(GenrecError.exit_code)


async def _failure(state: ServiceState) -> GenrecError:
    began = monotonic()
    try:
        await asyncio.wrap_future(state.inference.loaded)
        load_s = monotonic() - began
        await asyncio.to_thread(lambda: state.browser)
        _announce(state, state.inference.recommender, load_s)
    except GenrecError as error:  # it was refused, or failed before it could be announced
        return state.inference.check() or error
    while (failure := state.inference.check()) is None:
        await asyncio.sleep(WATCH_INTERVAL_S)
    return failure


def _announce(state: ServiceState, recommender: Recommender, load_s: float) -> None:
    manifest, catalog = recommender.bundle.manifest, recommender.bundle.catalog
    url = state.settings.url
    state.metrics.model_load_seconds.set(load_s)
    state.metrics.model_info.labels(manifest.name, manifest.version, recommender.device).set(1)
    log.info(
        "ready",
        url=url,
        bundle=manifest.name,
        version=manifest.version,
        items=len(catalog),
        device=recommender.device,
        dtype=recommender.dtype,
        engine=recommender.engine_name,
        catalog_version=recommender.availability.version,
        items_off=recommender.availability.items_off,
        load_s=round(load_s, 2),
        **({"docs": f"{url}/docs"} if state.settings.docs else {}),
    )
    history = [catalog.item_id(int(row)) for row in catalog.most_popular()[:2]]
    body = shlex.quote(json.dumps({"history": history, "k": 10}, ensure_ascii=False))
    # In the event itself: a field's quotes would be escaped, and this is there to be copied.
    log.info(f"try: curl -s {url}/recommend -H 'content-type: application/json' -d {body}")
