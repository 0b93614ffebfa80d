"""What Ray Serve is told: how many replicas of which size, how requests come to them, and how they go.

Settings become Ray's options here and nowhere else. Knows no cluster; `service.serve_ray` joins one.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from genrec.errors import InputError
from service.connection_limits import SPARE_CONNECTIONS
from service.ray_cluster import Share
from service.ray_replica import Replica
from service.settings import Settings

NAME = "genrec"
"""Of the application and of its one deployment."""
TARGET_ONGOING_REQUESTS = 16
"""Requests in a replica at which autoscaling has as many as it wants: batches are well filled, and few wait."""
HEALTH_CHECK_PERIOD_S = 2.0
LAST_RESORT_S = 660
"""For an answer of a replica: a minute more than a request may ask for, so that our own 504 comes first."""
LOGGING = {"log_level": "WARNING", "enable_access_log": False}
"""Of Ray Serve's own lines: each request has one of ours."""
MAX_STARTS = 3
"""A bundle that is refused is refused again; a node may have had a bad moment."""
SURGE_PERCENT = 25
"""Of the replicas, rounded up: how many new ones start before old ones stop. At Ray's default, 0, old ones go first."""


@dataclass(frozen=True, slots=True)
class Replicas:
    """How many replicas there are: fewest while nobody asks, most under load.

    Attributes:
        fewest: at least 1.
        most: the same for a fixed number.
    """

    fewest: int = 1
    most: int = 1

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `N` or `FEWEST-MOST`.

        Raises:
            InputError: it is neither.
        """
        found = re.fullmatch(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", text)
        fewest, most = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
        if not 1 <= fewest <= most:
            raise InputError(f"--replicas cannot be {text!r}; give a number, such as 2, or a range, such as 1-8.")
        return cls(fewest, most)

    @property
    def surge(self) -> int:
        """How many more there are while a new bundle takes the place of an old one, at the fewest."""
        return math.ceil(self.fewest * SURGE_PERCENT / 100)

    @property
    def options(self) -> dict[str, Any]:
        """For Ray Serve."""
        if self.fewest == self.most:
            return {"num_replicas": self.fewest}
        return {
            "autoscaling_config": {
                "min_replicas": self.fewest,
                "max_replicas": self.most,
                "target_ongoing_requests": TARGET_ONGOING_REQUESTS,
            }
        }


def fitting(settings: Settings) -> Settings:
    """The settings, if several replicas can keep them.

    Raises:
        InputError: they are for one process.
    """
    if settings.admin_address is not None or settings.state_dir is not None:
        raise InputError(
            "GENREC_ADMIN_LISTEN and GENREC_STATE_DIR change one process, and under Ray Serve there are several; unset "
            "them, and change the bundle of all replicas by deploying again with another --bundle."
        )
    if settings.device.startswith("cuda:"):
        raise InputError(
            f"the device is {settings.device}, but Ray gives each replica a GPU of its own; say --device cuda."
        )
    return settings


def share(settings: Settings) -> Share:
    """What one replica takes of a node: CPUs as the model has threads, or a GPU and one CPU."""
    return Share(cpus=1, gpus=1) if settings.device == "cuda" else Share(cpus=settings.threads)


def drain_s(settings: Settings) -> float:
    """How long an old replica still answers after it was taken from the proxies' lists.

    A proxy that has a new list keeps its old process for connections that are open: until the next request of each, or
    until keep-alive ends. Those go to the old list, so its replicas must outlive them.
    """
    return (settings.drain_delay_ms + settings.keep_alive_timeout_ms) / 1e3


def http_options(settings: Settings) -> dict[str, Any]:
    """Where Ray Serve's proxies listen. A request's time is bounded by its own deadline, not by Ray's."""
    return {
        "host": settings.host,
        "port": settings.port,
        "keep_alive_timeout_s": math.ceil(settings.keep_alive_timeout_ms / 1e3),
    }


def environment(settings: Settings) -> dict[str, str]:
    """Variables of Ray Serve for its controller, proxies and replicas.

    HAProxy with direct connections to replicas: of a stub on two cores it had 1,460 answers a second, Ray's own proxy
    200. Every request of the main application only reads, so one that a replica died under is sent to another: at most
    two times, so that a request that kills replicas does not kill them all.
    """
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": f"{drain_s(settings):g}",
        "RAY_SERVE_HAPROXY_MAXCONN": str(settings.max_connections + SPARE_CONNECTIONS),
        "RAY_SERVE_HAPROXY_RETRIES": "2",
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(math.ceil(settings.receive_timeout_ms / 1e3)),
        "RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S": str(LAST_RESORT_S),
    }


def private_environment(directory: Path, ports: Sequence[int]) -> dict[str, str]:
    """Where HAProxy's files are and what else it listens on, for a cluster that is alone with its user's machine.

    The defaults are names in /tmp that anyone could take, with a control socket that anyone may use, and fixed ports.

    Args:
        directory: that no one else can enter.
        ports: three free ones.
    """
    stats, metrics, fallback = map(str, ports)
    return {
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(directory / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(directory / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(directory),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(directory / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(directory / "metrics.sock"),
        "RAY_SERVE_HAPROXY_STATS_PORT": stats,
        "RAY_SERVE_HAPROXY_METRICS_PORT": metrics,
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": fallback,
    }


def application(settings: Settings, replicas: Replicas | None, variables: Mapping[str, str]) -> Any:  # noqa: ANN401
    """The service as an application of Ray Serve.

    Our own queue refuses what is too much, with 429 and its problem document: so many requests as it has beam rows are
    let in, which is more than it ever admits, and none waits in a queue of Ray's.

    Args:
        settings: how each replica serves.
        replicas: how many; None leaves it to the file that Ray Serve was given.
        variables: for the replicas' processes; none leaves them those of their nodes.
    """
    from ray import serve  # only where it is asked for

    needed = share(settings)
    deployment = serve.deployment(
        serve.ingress()(Replica),
        name=NAME,
        max_ongoing_requests=settings.max_queue_rows,
        max_queued_requests=-1,
        ray_actor_options={
            "num_cpus": needed.cpus,
            "num_gpus": needed.gpus,
            **({"runtime_env": {"env_vars": dict(variables)}} if variables else {}),
        },
        health_check_period_s=HEALTH_CHECK_PERIOD_S,
        health_check_timeout_s=settings.watchdog_timeout_ms / 1e3,
        graceful_shutdown_wait_loop_s=0.5,
        graceful_shutdown_timeout_s=drain_s(settings) + settings.drain_timeout_ms / 1e3,
        max_constructor_retry_count=MAX_STARTS,
        max_surge_percent=SURGE_PERCENT,
        rolling_update_percentage=SURGE_PERCENT / 100,
        logging_config=LOGGING,
        **(replicas.options if replicas else {}),
    )
    return deployment.bind(settings.model_dump(mode="json"))
