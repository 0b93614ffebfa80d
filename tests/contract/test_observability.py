"""Alert rules and board ask for what the service really tells. Debian's package `prometheus` brings promtool."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.metrics import Metrics

ROOT = Path(__file__).parents[2]
FILES = ROOT / "deploy/observability"
NAME = re.compile(r"\b(?:genrec|process|python|http|go)_\w+\b|\bup\b")

promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


def rules() -> list[dict[str, Any]]:
    [group] = yaml.safe_load((FILES / "alerts.yml").read_text())["groups"]
    return group["rules"]


def cases() -> list[dict[str, Any]]:
    return yaml.safe_load((FILES / "alerts_test.yml").read_text())["tests"]


def board() -> dict[str, Any]:
    return json.loads((FILES / "dashboard.json").read_text())


def board_expressions() -> list[str]:
    return [target["expr"] for panel in board()["panels"] for target in panel.get("targets", [])]


def exported() -> set[str]:
    """Every name that may stand in a query: the samples of `/metrics`, and the one that Prometheus adds."""
    text = Metrics().text().decode()
    samples = {line.partition(" ")[0].partition("{")[0] for line in text.splitlines() if not line.startswith("#")}
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE))
    histograms = {f"{name}_{part}" for name, kind in kinds.items() if kind == "histogram" for part in HISTOGRAM_PARTS}
    labelled = {name for name, kind in kinds.items() if kind != "histogram"}
    return samples | histograms | labelled | {"up"}


HISTOGRAM_PARTS = ("bucket", "sum", "count")


def unknown_names(expression: str) -> set[str]:
    without_values = re.sub(r'"[^"]*"', "", expression)
    return set(NAME.findall(without_values)) - exported()


def test_every_alert_asks_for_what_is_exported():
    assert {rule["alert"]: unknown_names(rule["expr"]) for rule in rules()} == {
        rule["alert"]: set() for rule in rules()
    }


def test_every_panel_asks_for_what_is_exported():
    assert len(board_expressions()) > 20
    assert not {name for expression in board_expressions() for name in unknown_names(expression)}


def test_a_name_that_is_not_exported_would_be_found():
    assert unknown_names('sum(rate(genrec_requests_totals{status="500"}[5m]))') == {"genrec_requests_totals"}
    assert unknown_names("genrec_request_seconds > 1") == {"genrec_request_seconds"}  # a histogram has only its parts
    assert unknown_names("histogram_quantile(0.99, genrec_request_seconds_bucket) and up") == set()


def test_panels_have_ids_of_their_own_and_do_not_overlap():
    panels = board()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_board_finds_its_source():
    source = yaml.safe_load((FILES / "grafana/datasource.yml").read_text())["datasources"][0]
    asked = {target["datasource"]["uid"] for panel in board()["panels"] for target in panel.get("targets", [])}
    assert asked == {source["uid"]}
    assert source["url"] == "http://prometheus:9090"


def test_every_alert_is_tested_both_ways_and_explained():
    page = (ROOT / "docs/observability.md").read_text(encoding="utf-8")
    for rule in rules():
        name = rule["alert"]
        expected = [
            bool(one["exp_alerts"]) for case in cases() for one in case["alert_rule_test"] if one["alertname"] == name
        ]
        assert set(expected) == {True, False}, name
        assert f"| `{name}` |" in page


def run(*command: str, cwd: Path = FILES) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr if done.returncode else ""


@promtool
def test_the_rules_are_rules_and_do_as_their_tests_say():
    assert run("promtool", "check", "rules", "alerts.yml") == ""
    assert run("promtool", "test", "rules", "alerts_test.yml") == ""


@promtool
@pytest.mark.parametrize("expr", ["vector(0) > 1", "vector(1) > 0"], ids=["never", "always"])
def test_an_alert_that_never_or_always_fires_fails_its_tests(tmp_path, expr):
    changed = yaml.safe_load((FILES / "alerts.yml").read_text())
    for rule in changed["groups"][0]["rules"]:
        rule["expr"] = expr
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(changed))
    shutil.copy(FILES / "alerts_test.yml", tmp_path)
    said = run("promtool", "test", "rules", "alerts_test.yml", cwd=tmp_path)
    assert {rule["alert"] for rule in rules()} == set(re.findall(r"alertname: (\w+),", said))


@promtool
def test_every_panel_is_promql(tmp_path):
    expressions = [expression.replace("$__rate_interval", "1m") for expression in board_expressions()]
    assert not [expression for expression in expressions if "$" in expression]
    recorded = [{"record": f"panel:{place}", "expr": one} for place, one in enumerate(expressions)]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "board", "rules": recorded}]}))
    assert run("promtool", "check", "rules", str(file)) == ""
    recorded[0]["expr"] += ")"
    file.write_text(yaml.safe_dump({"groups": [{"name": "board", "rules": recorded}]}))
    assert run("promtool", "check", "rules", str(file)) != ""


@promtool
def test_the_configuration_is_one(tmp_path):
    config = yaml.safe_load((FILES / "prometheus.yml").read_text())
    assert config["rule_files"] == ["/etc/genrec/alerts.yml"]  # where the image has it
    config["rule_files"] = [str(FILES / "alerts.yml")]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    assert run("promtool", "check", "config", str(tmp_path / "prometheus.yml")) == ""
