"""What the routes of one service share."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, TypeVar

from fastapi import Depends, Request

from genrec import requests as domain
from genrec.availability import Availability
from genrec.recommender import Recommender
from service.access import Access
from service.batcher import Answered, Work
from service.browser import CatalogBrowser
from service.browsers import Browsers
from service.bundle_switch import BundleSwitch
from service.calls import Served
from service.catalog_switch import CatalogSwitch
from service.errors import NotReady
from service.filter_thread import FilterThread
from service.inference import InferenceThread
from service.metrics import Metrics
from service.settings import Settings

Asked = TypeVar("Asked", domain.Request, domain.ScoreRequest)


@dataclass(frozen=True)
class ServiceState:
    """The settings, the engine and the counters of one service.

    Attributes:
        settings: how it serves.
        inference: who answers.
        metrics: the counters.
        catalog: switches items off and on; None for a service that keeps no state.
        bundles: changes the bundle; None likewise.
        access: who may come in.
        browsers: of the bundles that are served.
        filters: works new filters out, before the model is asked.
    """

    settings: Settings
    inference: InferenceThread
    metrics: Metrics
    catalog: CatalogSwitch | None = None
    bundles: BundleSwitch | None = None
    access: Access = field(default_factory=Access)
    browsers: Browsers = field(default_factory=Browsers)
    filters: FilterThread = field(default_factory=FilterThread)

    def availability(self) -> Availability | None:
        """Which items are on now; None while nothing is loaded."""
        try:
            return self.inference.recommender.availability
        except NotReady:
            return None

    async def ask(
        self, recommender: Recommender, work: Work[Asked, Answered], requests: Sequence[Asked], deadline: float
    ) -> list[Served[Answered]]:
        """`InferenceThread.submit`, with the filters of the requests worked out before.

        Raises:
            Overloaded: there is no room, or too many new filters wait.
            DeadlineExceeded, RequestError, NotReady: as `submit`.
        """
        await self.filters.ready(recommender, [request.filter for request in requests], deadline)
        return await self.inference.submit(recommender, work, requests, deadline)

    @property
    def browser(self) -> CatalogBrowser:
        """Search over the catalog that is served now.

        Raises:
            NotReady: nothing is loaded.
        """
        return self.browsers.of(self.inference.recommender.bundle)

    def drain(self) -> None:
        """Say that the service stops soon, and begin nothing long."""
        self.inference.drain()
        if self.bundles is not None:
            self.bundles.stop()


def service_state(request: Request) -> ServiceState:
    """The state of the service that `request` came to."""
    state: ServiceState = request.app.state.service
    return state


async def _service_state(request: Request) -> ServiceState:
    # A dependency that is a plain function would be called in a thread: two hand-overs a request, for an attribute.
    return service_state(request)


StateOf = Annotated[ServiceState, Depends(_service_state)]
"""Parameter of a route: the service's state."""
