"""What the routes of one service share."""

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

from fastapi import Depends, Request

from service.browser import CatalogBrowser
from service.inference import InferenceThread
from service.metrics import Metrics
from service.settings import Settings


@dataclass(frozen=True)
class ServiceState:
    """The settings, the engine and the counters of one service."""

    settings: Settings
    inference: InferenceThread
    metrics: Metrics

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
