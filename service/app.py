"""The application: `create_app` puts settings, engine and routes together."""

import asyncio
import json
import os
import shlex
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, closing
from functools import partial
from importlib.metadata import version
from pathlib import Path
from time import monotonic

import structlog
from fastapi import FastAPI

from genrec.bundle import Shelf
from genrec.errors import GenrecError
from genrec.recommender import Recommender
from service.access import Access, Doors, RequireToken
from service.browsers import Browsers
from service.bundle_switch import BundleSwitch
from service.catalog_switch import CatalogSwitch
from service.inference import InferenceThread, Limits
from service.loading import load_to_serve
from service.metrics import Metrics
from service.middleware import ObserveRequests
from service.openapi import install_openapi
from service.refusals import install_refusals
from service.routes import bundle, items, operations, recommend, score, tree
from service.routes.ui import ui_router
from service.settings import Settings
from service.state import ServiceState
from service.state_directory import StateDirectory
from service.tracing import TELEMETRY

log = structlog.stdlib.get_logger(__name__)

WATCH_INTERVAL_S = 0.25
STOP_S = 5.0
"""How long the last batch may take once nobody waits for it: open requests have been waited for before."""
FLUSH_S = 0.5
"""How long clients who were told 503 have to read it before the process ends."""


def create_app(
    settings: Settings,
    load: Callable[[Path, Settings], Recommender] = load_to_serve,
    end: Callable[[int], object] = os._exit,
) -> FastAPI:
    """The service as an ASGI application.

    Loading begins with its lifespan and goes on behind it: probes are answered meanwhile.

    Args:
        settings: how to serve.
        load: makes the recommender of a bundle; called in the inference thread, and in one beside it to reload.
        end: ends the process with an exit code, called when the service can answer no more: 65 for a refused bundle,
            70 for an engine that died or hangs.

    Raises:
        LockedError: another service holds the state directory.
        InputError: the state directory cannot be used, or what it holds is damaged; or a file of keys or tokens is.
    """
    with ExitStack() as held:
        state = _state(settings, load, held)
        kept = held.pop_all()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        state.inference.start()
        watch = asyncio.create_task(_watch(state, end))
        fresh = asyncio.create_task(state.access.keep_fresh())
        try:
            yield
        finally:
            watch.cancel()
            fresh.cancel()
            await asyncio.to_thread(state.inference.stop, STOP_S)
            await asyncio.to_thread(kept.close)

    app = FastAPI(
        title="genrec",
        version=version("genrec"),
        description="Generative recommendation: a history of item ids in, the next items out.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json" if settings.docs else None,
        redirect_slashes=False,
        telemetry=TELEMETRY,
    )
    app.state.service = state
    app.add_middleware(RequireToken, doors=Doors.of_main(state.access, settings), attempts=state.access.attempts)
    app.add_middleware(ObserveRequests, metrics=state.metrics, inference=state.inference)
    for router in (recommend.router, score.router, items.router, tree.router, bundle.router, operations.router):
        app.include_router(router)
    if settings.docs:
        app.include_router(operations.docs_router)
    if settings.ui != "off":
        app.include_router(ui_router())
    install_refusals(app, state.metrics.rejected)
    install_openapi(app)
    return app


def _state(settings: Settings, load: Callable[[Path, Settings], Recommender], held: ExitStack) -> ServiceState:
    """What the routes share. `held` closes what it holds."""
    access, metrics, browsers = Access.open(settings), Metrics(), Browsers()

    def load_whole(bundle: Path) -> Recommender:
        recommender = load(bundle, settings)
        browsers.of(recommender.bundle)  # before it answers: an index of millions takes seconds
        return recommender

    catalog, bundles = None, None
    if settings.state_dir is not None:
        directory = held.enter_context(closing(StateDirectory.open(settings.state_dir)))
        catalog = CatalogSwitch(directory)
        bundles = BundleSwitch(settings.bundle, Shelf(settings.shelf), directory, catalog, load_whole)
    inference = InferenceThread(
        partial(_load_first, settings, load_whole, catalog, bundles), _limits(settings), metrics.observe_batch
    )
    state = ServiceState(settings, inference, metrics, catalog, bundles, access, browsers)
    metrics.watch(inference, state.availability, settings.max_queue_rows)
    return state


def _load_first(
    settings: Settings,
    load: Callable[[Path], Recommender],
    catalog: CatalogSwitch | None,
    bundles: BundleSwitch | None,
) -> Recommender:
    recommender = load(settings.bundle if bundles is None else bundles.current)
    return recommender if catalog is None else catalog.restore(recommender)


def _limits(settings: Settings) -> Limits:
    return Limits(
        max_queue_rows=settings.max_queue_rows,
        max_batch_rows=settings.max_batch_rows,
        max_linger_s=settings.max_linger_ms / 1e3,
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
    state.metrics.serve(manifest.name, manifest.version, recommender.device)
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
        **({"playground": f"{url}/ui/"} if state.settings.ui != "off" else {}),
    )
    history = [catalog.item_id(int(row)) for row in catalog.most_popular()[:2]]
    body = shlex.quote(json.dumps({"history": history, "k": 10}, ensure_ascii=False))
    # In the event itself: a field's quotes would be escaped, and this is there to be copied.
    key = ' -H "x-api-key: $KEY"' if state.access.keys else ""
    log.info(f"try: curl -s {url}/recommend -H 'content-type: application/json'{key} -d {body}")
