"""What nginx says and allows fits the service, as far as reading tells; tests/system/test_nginx.py starts it."""

import json
import re
from pathlib import Path

from service.errors import INTERNAL, KINDS
from service.middleware import MAX_HEADER_BYTES
from service.schemas import REQUEST_ID_PATTERN, Problem, RecommendRequest
from service.settings import Settings

TEXT = (Path(__file__).parents[2] / "deploy/nginx/nginx.conf").read_text(encoding="utf-8")
PROBLEMS = re.findall(r"""^        (\d+|default) '("title".*)';$""", TEXT, re.MULTILINE)


def directive(name: str) -> str:
    [value] = re.findall(rf"^ +{name} (.*?);", TEXT, re.MULTILINE)
    return value


def test_each_refusal_has_the_status_and_code_of_the_services():
    known = {(kind.status, kind.code) for kind in (*KINDS.values(), INTERNAL)} | {(405, "method_not_allowed")}
    assert len(PROBLEMS) == 9
    for status, fields in PROBLEMS:
        problem = Problem.model_validate_json(f'{{"type": "about:blank", {fields}, "request_id": "x"}}')
        assert str(problem.status) == status.replace("default", "500")
        assert (problem.status, problem.code) in known


def test_each_status_that_nginx_gives_has_its_refusal():
    told = [line.split() for line in re.findall(r"error_page (.*) /problem;", TEXT)]
    becomes = {word.lstrip("=") for words in told for word in words if word.startswith("=")}
    stays = {word for words in told if not any("=" in word for word in words) for word in words}
    assert becomes | stays == {status.replace("default", "500") for status, _ in PROBLEMS}


def test_an_id_is_taken_where_the_service_would_take_it():
    assert f'"~{REQUEST_ID_PATTERN}" $http_x_request_id;' in TEXT


def test_what_exceeds_the_services_limits_still_reaches_it():
    settings = Settings.model_fields
    assert directive("client_max_body_size") == "1m"
    assert settings["max_body_bytes"].default < 1024**2
    count, size = directive("large_client_header_buffers").split()
    assert int(count) * int(size.removesuffix("k")) * 1024 == MAX_HEADER_BYTES


def test_a_request_has_the_time_that_it_may_ask_for():
    allowed = RecommendRequest.model_json_schema()["properties"]["timeout_ms"]["anyOf"][0]["maximum"]
    assert int(directive("proxy_read_timeout").removesuffix("s")) * 1_000 > allowed


def test_a_line_of_its_log_is_json_and_tells_no_path_and_no_client():
    [parts] = re.findall(r"log_format line escape=json ((?:'[^']*'\s*)+);", TEXT)
    line = "".join(re.findall(r"'([^']*)'", parts))
    names = set(re.findall(r"\$(\w+)", line))
    assert json.loads(re.sub(r"\$\w+", "0", line))["event"] == "proxied"
    assert not {name for name in names if name.startswith(("request_uri", "uri", "args", "remote", "http_", "query"))}
    assert "request" not in names
    assert re.search(r"^error_log stderr crit;", TEXT, re.MULTILINE)  # the levels below repeat request lines
