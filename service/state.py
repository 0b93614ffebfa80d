"""What the routes of one service share."""

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

from fastapi import Depends, Request

from genrec.availability import Availability
from service.browser import CatalogBrowser
from service.catalog_switch import CatalogSwitch
from service.errors import NotReady
from service.inference import InferenceThread
from service.metrics import Metrics
from service.settings import Settings


@dataclass(frozen=True)
class ServiceState:
    """The settings, the engine and the counters of one service.

    Attributes:
        settings: how it serves.
        inference: who answers.
        metrics: the counters.
        catalog: switches items off and on; None for a service that keeps no state.
    """

    settings: Settings
    inference: InferenceThread
    metrics: Metrics
    catalog: CatalogSwitch | None = None

    def availability(self) -> Availability | None:
        """Which items are on now; None while nothing is loaded."""
        try:
            return self.inference.recommender.availability
        except NotReady:
            return None

    @cached_property
    def browser(self) -> CatalogBrowser:
        """Search over the loaded catalog.

        Raises:
            NotReady: nothing is loaded.
        """
        return CatalogBrowser(self.inference.recommender.bundle.catalog)


def service_state(request: Request) -> ServiceState:
    """The state of the service that `request` came to."""
    state: ServiceState = request.app.state.service
    return state


StateOf = Annotated[ServiceState, Depends(service_state)]
"""Parameter of a route: the service's state."""
