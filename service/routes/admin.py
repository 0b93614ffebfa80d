"""What administrators may change while the service runs. Never part of the main application."""

from asyncio import shield, wrap_future
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Annotated

import structlog
from anyio import to_thread
from fastapi import APIRouter, Depends, Request

from genrec.bundle.shelf import Shelved
from genrec.errors import GenrecError
from genrec.recommender import Recommender
from service.admin_schemas import (
    BundleChanged,
    Bundles,
    CatalogAnswer,
    CatalogChange,
    CatalogChanged,
    Reload,
    Rollback,
    ShelvedBundle,
)
from service.bundle_switch import BundleSwitch, Changed
from service.catalog_switch import CatalogStatus, CatalogSwitch
from service.errors import NotReady
from service.json_body import JsonRoute
from service.middleware import record_of
from service.schemas import BundleName
from service.settings import Settings
from service.state import StateOf
from service.translation import bundle_name

log = structlog.stdlib.get_logger(__name__)

MAX_BODY_BYTES = 8 * 1024 * 1024
"""Room for two full lists of ids of 40 bytes."""


class AdminJsonRoute(JsonRoute):
    """A route whose body may be longer than a stranger's."""

    @staticmethod
    def max_body_bytes(settings: Settings) -> int:
        """The same for every service."""
        return MAX_BODY_BYTES


router = APIRouter(prefix="/admin")
changes = APIRouter(prefix="/admin", route_class=AdminJsonRoute)


def _switch(state: StateOf) -> CatalogSwitch:
    if state.catalog is None:
        raise NotReady("The service keeps no state.")
    return state.catalog


def _bundles(state: StateOf) -> BundleSwitch:
    if state.bundles is None:
        raise NotReady("The service keeps no state.")
    return state.bundles


SwitchOf = Annotated[CatalogSwitch, Depends(_switch)]
BundlesOf = Annotated[BundleSwitch, Depends(_bundles)]


@router.get("/catalog", summary="Where the catalog stands")
async def catalog(state: StateOf, switch: SwitchOf) -> CatalogAnswer:
    """Its version, and how many items are off."""
    return CatalogAnswer(**_sent(switch.status(state.inference.recommender)))


@changes.post("/catalog", summary="Switch items off and on")
async def change_catalog(sent: CatalogChange, request: Request, state: StateOf, switch: SwitchOf) -> CatalogChanged:
    """When this answers, the change is on the disk and every later request is answered under it."""
    status, unknown = await to_thread.run_sync(
        switch.change, state.inference, sent.off, sent.on, limiter=request.app.state.turn
    )
    record_of(request.scope).facts |= {
        "off": len(sent.off), "on": len(sent.on), "unknown_items": unknown, "catalog_version": status.version,
    }  # fmt: skip
    return CatalogChanged(**_sent(status), unknown_items=unknown)


@router.get("/bundles", summary="Which bundles there are")
async def list_bundles(bundles: BundlesOf) -> Bundles:
    """Those under GENREC_BUNDLES_DIR by name, with those that look like one and are none."""
    listing = await to_thread.run_sync(bundles.shelf.listing)
    return Bundles(
        current=bundles.record.current,
        previous=bundles.record.previous,
        bundles=[_shelved(one) for one in listing.bundles],
        complete=listing.complete,
    )


@changes.post("/reload", summary="Serve another bundle")
async def reload(sent: Reload, request: Request, state: StateOf, bundles: BundlesOf) -> BundleChanged:
    """Loads it beside the one that is served, verifies, proves and warms it, and swaps. Any failure changes nothing."""
    began = partial(bundles.change, state.inference, sent.bundle, _swapped(state))
    return await _changed(request, state, began, "swapped")


@changes.post("/rollback", summary="Serve the bundle that was served before")
async def rollback(sent: Rollback, request: Request, state: StateOf, bundles: BundlesOf) -> BundleChanged:
    """As a reload of that one: it is verified and proven again."""
    return await _changed(request, state, partial(bundles.back, state.inference, _swapped(state)), "rolled_back")


async def _changed(
    request: Request, state: StateOf, begin: Callable[[], Future[Changed]], outcome: str
) -> BundleChanged:
    # The change goes on if the client leaves: it is no question of who waits for it.
    try:
        changed = await shield(wrap_future(begin()))
    except GenrecError:
        state.metrics.reloads.labels("refused").inc()
        raise
    state.metrics.reloads.labels(outcome).inc()
    record_of(request.scope).facts |= {"current": changed.record.current, "load_s": round(changed.load_s, 2)}
    return BundleChanged(
        current=changed.record.current,
        previous=changed.record.previous,
        bundle=bundle_name(changed.recommender),
        load_s=round(changed.load_s, 3),
    )


def _swapped(state: StateOf) -> Callable[[Recommender], None]:
    def tell(recommender: Recommender) -> None:
        manifest = recommender.bundle.manifest
        state.metrics.serve(manifest.name, manifest.version, recommender.device)
        log.info("serves another bundle", bundle=manifest.name, version=manifest.version)

    return tell


def _shelved(one: Shelved) -> ShelvedBundle:
    manifest = one.manifest
    return ShelvedBundle(
        name=one.name,
        bundle=manifest and BundleName(name=manifest.name, version=manifest.version),
        created_at=manifest and manifest.created_at,
        reason=one.reason,
    )


def _sent(status: CatalogStatus) -> dict[str, int]:
    return {
        "catalog_version": status.version,
        "items_off": status.items_off,
        "unknown_items_off": status.unknown_items_off,
    }
