"""Changing the bundle while requests are answered: loaded beside, proven, written down, and only then swapped in.

Whatever goes wrong before the swap leaves the service as it was. One change at a time; a rollback is a change like any
other, to the bundle before. Knows no HTTP.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import structlog

from genrec.bundle import Shelf
from genrec.bundle.manifest import read_sealed_manifest
from genrec.errors import BundleError, EngineError, GenrecError, InputError
from genrec.memory import free_memory
from genrec.recommender import Recommender
from service.bundle_record import BundleRecord
from service.catalog_switch import CatalogSwitch
from service.errors import Busy, NothingBefore, NotReady, NotStored
from service.inference import InferenceThread
from service.state_directory import StateDirectory

log = structlog.stdlib.get_logger(__name__)

FILE = "bundle"
ROOM = 1.2
"""Free memory that must be there, as a multiple of what the weights take."""


@dataclass(frozen=True, slots=True)
class Changed:
    """What a change came to.

    Attributes:
        recommender: who answers now.
        record: which bundle that is, and which was before.
        load_s: seconds from the beginning to the swap.
    """

    recommender: Recommender
    record: BundleRecord
    load_s: float


class BundleSwitch:
    """The one place that changes which bundle is served.

    Attributes:
        shelf: the bundles that may be asked for.
        record: which is current. Where nothing was ever changed, the one that the settings name.
    """

    def __init__(
        self,
        configured: Path,
        shelf: Shelf,
        directory: StateDirectory,
        catalog: CatalogSwitch,
        load: Callable[[Path], Recommender],
    ) -> None:
        """Read what was current.

        Args:
            configured: the bundle that the settings name.
            shelf: where others are.
            directory: where the record is kept.
            catalog: which items are off, whatever the bundle.
            load: makes a recommender that may serve; called in a thread of its own.

        Raises:
            InputError: the record is damaged.
        """
        self.shelf = shelf
        self._configured = configured.resolve()  # "." has no name, and a link may point elsewhere after a restart
        self._directory = directory
        self._catalog = catalog
        self._load = load
        self._one = threading.Lock()
        self._pending: Future[Changed] | None = None
        self._stopping = False
        self.record = self._stored()

    @property
    def current(self) -> Path:
        """The bundle to begin with.

        Raises:
            InputError: it is not on the shelf any more.
        """
        try:
            return self._path(self.record.current)
        except BundleError as error:
            raise InputError(
                f"the bundle that was served last cannot be found: {error} Put it back, or remove "
                f"{self._directory.path / FILE} to serve the one that the settings name."
            ) from error

    def change(self, inference: InferenceThread, name: str, swapped: Callable[[Recommender], None]) -> Future[Changed]:
        """Begin to change to another bundle, in a thread of its own.

        Args:
            inference: whose answers are meant.
            name: of a bundle on the shelf.
            swapped: told of the new recommender once it answers; called in that thread.

        Returns:
            What it comes to. It fails with a BundleError for a bundle that is refused, or that would not fit beside the
            one that is served, NotStored where the change could not be written down, NotReady when the service stops
            meanwhile. The bundle that was served is served on then.

        Raises:
            Busy: a change is under way.
            NotReady: the service is stopping.
        """
        if self._stopping:
            raise NotReady("The service is stopping; no bundle is loaded any more.")
        if not self._one.acquire(blocking=False):
            raise Busy("A bundle is being loaded already; wait until that has ended.")
        # A future of its own, and a daemon: a service that stops does not wait for a bundle to be loaded.
        future = self._pending = Future()
        threading.Thread(target=self._run, args=(future, inference, name, swapped), name="reload", daemon=True).start()
        return future

    def back(self, inference: InferenceThread, swapped: Callable[[Recommender], None]) -> Future[Changed]:
        """As `change`, to the bundle that was served before.

        Raises:
            Busy: a change is under way.
            NothingBefore: there is none.
        """
        if self.record.previous is None:
            raise NothingBefore("No other bundle was served before this one; name one to /admin/reload.")
        return self.change(inference, self.record.previous, swapped)

    @property
    def under_way(self) -> bool:
        """Whether a bundle is being loaded."""
        return self._one.locked()

    def stop(self) -> None:
        """Change nothing more, and tell who waits for a change. What is being loaded is not swapped in."""
        self._stopping = True
        if (pending := self._pending) is not None:
            with suppress(InvalidStateError):
                pending.set_exception(NotReady("The service is stopping; the bundle was not changed."))

    def _run(
        self,
        future: "Future[Changed]",
        inference: InferenceThread,
        name: str,
        swapped: Callable[[Recommender], None],
    ) -> None:
        try:
            outcome: Changed | GenrecError = self._exchanged(inference, name, swapped)
        except GenrecError as error:
            outcome = _without_frames(error)
        except Exception as error:  # the thread's outermost frame: whoever waits must be told
            log.exception("a change of the bundle failed")
            outcome = EngineError(f"loading failed with {type(error).__name__}.")
        self._pending = None
        self._one.release()
        with suppress(InvalidStateError):
            if isinstance(outcome, GenrecError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    def _exchanged(self, inference: InferenceThread, name: str, swapped: Callable[[Recommender], None]) -> Changed:
        began = monotonic()
        fresh = self._loaded(name, inference.recommender)
        with inference.changing() as served:
            if self._stopping:
                raise NotReady("The service is stopping; the bundle was not changed.")
            fresh = self._catalog.restore(fresh)
            record = self.record.moved_to(name)
            try:
                self._directory.write(FILE, record.to_bytes())
            except NotStored:
                self._catalog.restore(served)
                raise
            inference.replace(fresh)
            self.record = record
        swapped(fresh)
        return Changed(fresh, record, monotonic() - began)

    def _loaded(self, name: str, served: Recommender) -> Recommender:
        path = self._path(name)
        try:
            _check_room(path, served)
            return self._load(path)
        except (BundleError, InputError, EngineError) as error:
            # An administrator is told why, but not where: paths stay in the log.
            raise BundleError(str(error).replace(str(path), name)) from error

    def _path(self, name: str) -> Path:
        return self._configured if name == self._configured.name else self.shelf.find(name)

    def _stored(self) -> BundleRecord:
        plain = BundleRecord.of(self._configured.name)
        content = self._directory.read(FILE)
        if content is None:
            return plain
        try:
            stored = BundleRecord.from_bytes(content)
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"the state file {self._directory.path / FILE} is damaged: {error}; put a copy of it in its place, "
                "or remove it to serve the bundle that the settings name."
            ) from error
        if stored.configured == plain.configured:
            return stored
        log.info("the settings name another bundle than before, so what was reloaded is forgotten", now=plain.current)
        return plain


def _without_frames(error: GenrecError) -> GenrecError:
    # The frames that it passed hold what was loaded, and are held until a rare pass of the collector.
    error.__cause__ = error.__context__ = error.__traceback__ = None
    return error


def _check_room(path: Path, served: Recommender) -> None:
    """Refuse a bundle that would not fit beside the one that is served, before the kernel ends the process for it.

    Raises:
        BundleError: there is not enough, or its manifest cannot be read.
    """
    manifest = read_sealed_manifest(path)
    needed = {"cpu": manifest.loading_bytes(served.dtype)}
    if served.device != "cpu":
        needed[served.device] = manifest.weight_bytes(served.dtype)
    for device, size in needed.items():
        free = free_memory(device)
        if free is not None and free < ROOM * size:
            raise BundleError(
                f"the bundle needs {ROOM * size / 2**20:.0f} MiB of memory on {device} beside the one that is served, "
                f"and {free / 2**20:.0f} MiB are free."
            )
