"""What administrators may change while the service runs. Never part of the main application."""

from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Depends, Request

from service.admin_schemas import CatalogAnswer, CatalogChange, CatalogChanged
from service.catalog_switch import CatalogStatus, CatalogSwitch
from service.errors import NotReady
from service.json_body import JsonRoute
from service.middleware import record_of
from service.settings import Settings
from service.state import StateOf

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


SwitchOf = Annotated[CatalogSwitch, Depends(_switch)]


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


def _sent(status: CatalogStatus) -> dict[str, int]:
    return {
        "catalog_version": status.version,
        "items_off": status.items_off,
        "unknown_items_off": status.unknown_items_off,
    }
