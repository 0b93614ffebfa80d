"""What Ray Serve is told follows from the settings, and the config file that is shipped says the same."""

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from genrec.errors import InputError
from service.ray_cluster import Share
from service.ray_deployment import NAME, Replicas, application, drain_s, environment, fitting, http_options, share
from service.settings import Settings, given_settings

# Ray 2.60 makes its pydantic models in a way that pydantic 2 deprecates, when it is imported.
pytestmark = pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field` is deprecated")

ROOT = Path(__file__).parents[2]


def some(**changes: Any) -> Settings:
    return given_settings({"bundle": "small", "threads": 1, **changes})


def deployed(settings: Settings, replicas: Replicas | None = None) -> Any:
    return application(settings, replicas or Replicas(), environment(settings))._bound_deployment


@pytest.mark.parametrize(
    ("text", "replicas"), [("2", Replicas(2, 2)), ("1-8", Replicas(1, 8)), ("3-3", Replicas(3, 3))]
)
def test_replicas_are_a_number_or_a_range(text: str, replicas: Replicas) -> None:
    assert Replicas.parse(text) == replicas


@pytest.mark.parametrize("text", ["0", "", "auto", "-1", "2-", "8-1", "1-2-3", "1.5"])
def test_any_other_number_of_replicas_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--replicas cannot be"):
        Replicas.parse(text)


@pytest.mark.parametrize(
    "changes",
    [{"state_dir": "state"}, {"state_dir": "state", "admin_listen": "8001", "admin_token_file": "token"}],
)
def test_what_changes_one_process_alone_is_refused_and_the_mend_is_another_deploy(changes: dict[str, str]) -> None:
    with pytest.raises(InputError, match=r"several; unset them, and change the bundle .* by deploying again"):
        fitting(some(**changes))


def test_a_gpu_by_its_number_is_refused() -> None:
    with pytest.raises(InputError, match="say --device cuda"):
        fitting(some(device="cuda:1"))


def test_a_replica_takes_as_many_cpus_as_the_model_has_threads_or_a_gpu() -> None:
    assert share(some(threads=3)) == Share(cpus=3)
    assert share(some(device="cuda", threads=31)) == Share(cpus=1, gpus=1)
    options = deployed(some(device="cuda")).ray_actor_options
    assert (options["num_cpus"], options["num_gpus"]) == (1, 1)


def test_no_request_waits_or_is_refused_in_a_queue_of_rays_before_our_own_says_429() -> None:
    made = deployed(some(max_queue_rows=500))
    assert (made.max_ongoing_requests, made.max_queued_requests) == (500, -1)


def test_new_replicas_start_before_old_ones_stop() -> None:
    config = deployed(some(), Replicas(2, 2))._deployment_config
    assert (config.num_replicas, config.max_surge_percent) == (2, 25)
    assert [Replicas(count, count).surge for count in (1, 4, 5, 8, 9)] == [1, 1, 2, 2, 3]


def test_a_range_is_followed_by_load() -> None:
    config = deployed(some(), Replicas(1, 8))._deployment_config.autoscaling_config
    assert (config.min_replicas, config.max_replicas, config.target_ongoing_requests) == (1, 8, 16)


def test_a_stop_waits_as_long_as_the_settings_say() -> None:
    settings = some(drain_delay_ms=4_000, keep_alive_timeout_ms=6_000, drain_timeout_ms=20_000)
    assert drain_s(settings) == 10, "old proxies hold a connection as long as keep-alive lasts"
    assert environment(settings)["RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"] == "10"
    assert deployed(settings)._deployment_config.graceful_shutdown_timeout_s == 30


def test_settings_reach_a_replica_as_plain_data_and_key_files_by_name_alone(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("s3cret-key-of-a-client\n")
    settings = some(host="0.0.0.0", api_keys_file=file, log_format="json")
    (values,) = deployed(settings).init_args
    assert given_settings(values) == settings
    assert "s3cret" not in repr(values)


def test_the_config_file_says_what_the_command_would() -> None:
    config = yaml.safe_load((ROOT / "deploy/ray/serve.yaml").read_text(encoding="utf-8"))
    (app,) = config["applications"]
    module, _, name = app["import_path"].partition(":")
    made = getattr(import_module(module), name)(app["args"])._bound_deployment
    settings = given_settings(made.init_args[0])
    assert config["controller_options"]["runtime_env"]["env_vars"] == environment(settings)
    assert app["runtime_env"]["env_vars"] == environment(settings)
    assert config["http_options"] == http_options(settings)
    assert (app["name"], app["deployments"][0]["name"], made.name, app["route_prefix"]) == (NAME, NAME, NAME, "/")
    assert app["deployments"][0]["autoscaling_config"] == Replicas(1, 4).options["autoscaling_config"]


def test_a_config_file_without_keys_is_refused_as_its_proxies_listen_everywhere() -> None:
    from service.serve_ray import app

    with pytest.raises(InputError, match="knows no keys"):
        app({"bundle": "small"})
