"""Bringing a cluster's replicas to what is to be served: proven first, then in the place of what serves now.

The bundle is proven in a process of the cluster of its own, so one that is refused changes nothing. Then Ray Serve
starts replicas of it before it stops old ones. Knows neither signals nor whose the cluster is.
"""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from genrec.errors import EngineError, GenrecError, InputError, one_line
from service.access import Access
from service.loading import load_to_serve
from service.ray_cluster import RayCluster
from service.ray_deployment import LOGGING, NAME, Replicas, application, environment, http_options, share
from service.settings import Settings, given_settings, is_loopback

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Rollout:
    """What is to be served, and where.

    Attributes:
        cluster: joined.
        settings: how each replica serves.
        replicas: how many.
        variables: for Ray Serve's processes, beside those that follow from the settings.
    """

    cluster: RayCluster
    settings: Settings
    replicas: Replicas
    variables: Mapping[str, str]

    def run(self) -> Settings:
        """Serve it. Returns when every replica does, with the settings as they came to be.

        Raises:
            InputError: the cluster has no room, or the settings do not fit it.
            BundleError: the bundle is refused; whatever served before still does.
            EngineError: the replicas do not start.
        """
        from ray import serve

        logging.getLogger("ray.serve").setLevel(logging.WARNING)  # what it says of its steps is said here
        settings = self.settings
        if settings.device == "auto":
            settings = settings.model_copy(update={"device": "cuda" if self.cluster.num_gpus else "cpu"})
        self._check_place(settings)
        log.info("proving", bundle=settings.bundle.name, device=settings.device)
        # Pinned: a replica that starts weeks later, or elsewhere, serves this version or nothing.
        settings = settings.model_copy(update={"expect_version": _proven(settings)})
        variables = {**environment(settings), **self.variables}
        log.info(
            "deploying", bundle=settings.bundle.name, version=settings.expect_version, replacing=replicas_running()
        )
        _start_serve(settings, variables)
        _check_address(settings)
        try:
            serve.run(application(settings, self.replicas, variables), name=NAME, route_prefix="/")
        except RuntimeError as error:  # Ray Serve's word for replicas that do not start
            raise _failed(error) from error
        return settings

    def _check_place(self, settings: Settings) -> None:
        there = _replicas()
        surge = self.replicas.surge if there else 0
        needed = max(self.replicas.fewest, there["RUNNING"]) + surge
        room = min(self.cluster.room(share(settings)), there.total() + share(settings).fits(_free()))
        if room < needed:  # Ray Serve would wait for it without a word
            more = f", {surge} of them while old ones still serve" if surge else ""
            raise InputError(
                f"{needed} replicas of {share(settings)} each are needed{more}, but the nodes of the Ray cluster "
                f"{self.cluster.address} have room for {room} now; add a node, or lower --replicas or GENREC_THREADS."
            )
        if is_loopback(settings.host) and _num_machines() > 1:
            raise InputError(
                f"the host is {settings.host}, but replicas on other machines of the Ray cluster "
                f"{self.cluster.address} are to be reached from its proxies; set --host 0.0.0.0."
            )


def replicas_running() -> int:
    """How many replicas serve now, of whichever version."""
    return _replicas()["RUNNING"]


def _replicas() -> Counter[str]:
    """How many there are in each state, in Ray Serve's words."""
    from ray import serve

    found = serve.status().applications.get(NAME)
    return Counter(dict(found.deployments[NAME].replica_states) if found and found.deployments else {})


def _free() -> Mapping[str, float]:
    import ray

    free: Mapping[str, float] = ray.available_resources()
    return free


def _num_machines() -> int:
    import ray

    return len({node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]})


def _proven(settings: Settings) -> str:
    """The version of the bundle, once a process of the cluster has loaded and proven it as a replica would."""
    import ray

    needed = share(settings)
    # One call a process: what it loaded is free again before a replica needs it.
    prove = ray.remote(num_cpus=needed.cpus, num_gpus=needed.gpus, max_retries=0, max_calls=1)(_prove)
    try:
        return str(ray.get(prove.remote(settings.model_dump(mode="json"))))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, GenrecError):
            raise error.cause from None
        raise EngineError(f"the bundle could not be proven on the cluster: {one_line(error.cause)}.") from error
    except ray.exceptions.RayError as error:
        raise EngineError(f"the process that was to prove the bundle ended: {one_line(error)}.") from error


def _prove(values: Mapping[str, Any]) -> str:
    settings = given_settings(values)
    Access.open(settings)
    return load_to_serve(settings.bundle, settings).bundle.manifest.version


def _start_serve(settings: Settings, variables: Mapping[str, str]) -> None:
    """Where Ray Serve runs already, it stays as it is."""
    import ray
    from ray import serve

    try:
        serve.start(
            http_options=http_options(settings),
            proxy_location="EveryNode",
            controller_options={"runtime_env": {"env_vars": dict(variables)}},
            logging_config=LOGGING,
        )
    except (TimeoutError, ray.exceptions.RayError) as error:
        raise EngineError(f"Ray Serve did not start on the cluster: {one_line(error)}.") from error


def _check_address(settings: Settings) -> None:
    """Where Ray Serve listens was decided when it was started on the cluster, maybe by someone else."""
    import ray

    controller = ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
    there = ray.get(controller.get_http_config.remote())
    if (there.host, there.port) != (settings.host, settings.port):
        raise InputError(
            f"Ray Serve listens on {there.host} port {there.port} on this cluster already, not on {settings.host} port "
            f"{settings.port}; give that as --host and --port, or end it with `serve shutdown`."
        )


def _failed(error: RuntimeError) -> EngineError:
    from ray import serve

    reason = (str(error).strip().splitlines() or ["no reason was given"])[-1]
    if still := replicas_running():
        return EngineError(
            f"the new replicas did not start ({reason}); {still} that served before still do, but none that is lost is "
            "started again: deploy what they serve, or a bundle that starts."
        )
    serve.delete(NAME)
    return EngineError(f"the replicas did not start: {reason}.")
