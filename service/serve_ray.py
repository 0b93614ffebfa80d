"""`genrec serve --ray`: the service as replicas of Ray Serve, behind its proxies.

A cluster that the command starts serves until the command is told to stop, as without Ray. On one that was there
before, the command brings the replicas to what it was given, waits until they serve, and ends.
"""

import signal
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from time import sleep
from types import FrameType
from typing import Any

import structlog

from genrec.errors import EngineError, Stopped, one_line
from service.listeners import bind
from service.logs import configure_logs
from service.ray_cluster import LOCAL, joined
from service.ray_deployment import NAME, Replicas, application, fitting, private_environment
from service.ray_rollout import Rollout, replicas_running
from service.settings import Settings, given_settings

log = structlog.stdlib.get_logger(__name__)

WATCH_INTERVAL_S = 2.0
_STOPS = (signal.SIGTERM, signal.SIGINT)


class _ToldToStop(BaseException):
    """Raised by a signal wherever the command is, so nothing on the way may take it for a failure."""


def app(args: Mapping[str, Any]) -> Any:  # noqa: ANN401  (Ray's own type, and Ray is imported only where it is used)
    """The application for a config file of Ray Serve: `import_path: service.serve_ray:app`.

    Args:
        args: settings by name, as in `Settings`; no environment is read. The proxies of a file listen on all addresses
            unless it says otherwise, so keys are asked for, or `auth: open`.

    Raises:
        InputError: the settings are refused.
    """
    settings = given_settings({"host": "0.0.0.0", "device": "cpu", **args})  # noqa: S104  (where a file's proxies are)
    return application(fitting(settings), None, {})


def serve_on_ray(settings: Settings, address: str, replicas: Replicas) -> None:
    """Serve until told to stop on a cluster of its own, or deploy on one that is there.

    Args:
        settings: how each replica serves.
        address: HOST:PORT of the cluster's head node, or "local".
        replicas: how many.

    Raises:
        InputError: the settings, the cluster or its room do not fit.
        BundleError: the bundle is refused; whatever served before still does.
        EngineError: the replicas do not start, or the cluster is gone.
        Stopped: a signal came while it deployed on a cluster that is there.
    """
    configure_logs(settings.log_format)
    settings = _with_absolute_paths(fitting(settings))
    with _stopping():
        if address == LOCAL:
            _serve_here(settings, replicas)
        else:
            _deploy_there(settings, address, replicas)


def _deploy(rollout: Rollout) -> None:
    settings = rollout.run()
    log.info(
        "ready",
        url=settings.url,
        bundle=settings.bundle.name,
        version=settings.expect_version,
        device=settings.device,
        replicas=replicas_running(),
    )


def _deploy_there(settings: Settings, address: str, replicas: Replicas) -> None:
    try:
        with joined(address) as cluster:
            _deploy(Rollout(cluster, settings, replicas, {}))
    except _ToldToStop as error:
        raise Stopped("stopped; what was deployed until then goes on by itself, see `serve status`.") from error


def _serve_here(settings: Settings, replicas: Replicas) -> None:
    with ExitStack() as held:
        port, *others = _ports(settings)
        directory = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="genrec-")))
        own = private_environment(directory, others)
        cluster = held.enter_context(joined(LOCAL, {"RAY_DEDUP_LOGS": "0"}, worker_logs=True))
        held.callback(_take_down)
        _deploy(Rollout(cluster, settings.model_copy(update={"port": port}), replicas, own))
        while True:
            _check_cluster()
            sleep(WATCH_INTERVAL_S)


def _check_cluster() -> None:
    import ray

    try:
        replicas_running()
    except ray.exceptions.RayError as error:
        raise EngineError(f"the Ray cluster does not answer any more: {one_line(error)}.") from error


def _take_down() -> None:
    """Let the replicas finish what they have; nothing new comes to them."""
    import ray
    from ray import serve

    log.info("stopping")
    # The cluster is gone, and its replicas with it; or they took more than the minute that Ray Serve waits for them.
    with suppress(ray.exceptions.RayError, TimeoutError):
        if NAME in serve.status().applications:
            serve.delete(NAME)
        serve.shutdown()


def _with_absolute_paths(settings: Settings) -> Settings:
    """Replicas have another working directory."""
    paths = {name: value for name, value in settings if isinstance(value, Path)}
    return settings.model_copy(update={name: path.absolute() for name, path in paths.items()})


def _ports(settings: Settings) -> list[int]:
    """The service's own, and three free ones for what else HAProxy listens on. Free now: Ray takes no open socket."""
    with ExitStack() as sockets:
        taken = [sockets.enter_context(bind(settings.host, settings.port, "--host or --port"))]
        taken += [sockets.enter_context(socket.create_server(("", 0))) for _ in range(3)]
        return [one.getsockname()[1] for one in taken]


@contextmanager
def _stopping() -> Iterator[None]:
    """The first signal ends the block, which is then as it should be; later ones wait with it."""

    def stop(signal_number: int, frame: FrameType | None) -> None:
        for one in _STOPS:
            signal.signal(one, signal.SIG_IGN)
        raise _ToldToStop

    before = {one: signal.signal(one, stop) for one in _STOPS}
    try:
        yield
    except _ToldToStop:
        log.info("stopped", exit_code=0)
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
