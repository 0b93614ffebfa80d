"""Model families that come through the door, by the real commands: trained, merged, bundled, and asked over HTTP.

RecT5 of this package, and the package of docs/models.md, which only the processes that need it can see.
"""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pyarrow.parquet as pq
import pytest

from genrec.model_plugin import installed_plugin
from tests.own_generate import own_generate
from tests.plugin_packages import install_page
from tests.system.server import begun_anew, served
from tests.training.runs import SHORT

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]


def train(model_type: str, folder: Path) -> Path:
    flags = [word for key in (*SHORT, f"model.config.model_type={model_type}") for word in ("--set", key)]
    output = ["--output", str(folder / "bundle"), "--work", str(folder / "work")]
    done = subprocess.run(
        [sys.executable, "-m", "genrec", "train", "tiny-t5", *flags, *output],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "bundle"


def agrees(bundle: Path, model_type: str, client: httpx.Client) -> None:
    """Every history is answered as the model's own `generate` answers it."""
    plugin = installed_plugin(model_type)
    assert plugin is not None
    items = pq.read_table(bundle / "catalog/items.parquet", columns=["item_id"])["item_id"].to_pylist()
    histories = [items[at : at + 1 + at % 9] for at in range(0, 40, 2)]
    for history, expected in zip(histories, own_generate(bundle, plugin, histories, 10), strict=True):
        body = {"history": history, "k": 10, "num_beams": 20, "exclude_history": False}
        answer = client.post("/recommend", json=body).raise_for_status().json()["items"]
        assert [item["item_id"] for item in answer] == [item for item, _ in expected]
        assert [item["score"] for item in answer] == pytest.approx([score for _, score in expected], abs=1e-4)


def test_rect5_is_trained_and_answers_over_http_as_its_own_generate(tmp_path: Path) -> None:
    bundle = train("rect5", tmp_path)
    with served(bundle, log=tmp_path / "log") as client:
        agrees(bundle, "rect5", client)
        shown = client.get("/v1/items", params={"limit": 3}).raise_for_status().json()["items"]
        candidates = [item["item_id"] for item in shown]
        body = {"history": candidates[:1], "candidates": candidates}
        scored = client.post("/v1/score", json=body).raise_for_status().json()["items"]
        assert [item["item_id"] for item in scored] == candidates and all(item["score"] < 0 for item in scored)


@pytest.mark.soak
def test_the_package_of_the_page_is_trained_and_answers_over_http_as_its_own_generate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = install_page(tmp_path / "site")
    with monkeypatch.context() as installed:
        installed.setenv("PYTHONPATH", str(site))
        installed.syspath_prepend(str(site))
        bundle = train("sequel", tmp_path)
        with served(bundle, log=tmp_path / "log", begin=begun_anew) as client:
            agrees(bundle, "sequel", client)
    refused = begun_anew(bundle, log=tmp_path / "refused")
    assert refused.wait(timeout=60) == 65
    assert (
        "model type 'sequel' is of neither transformers nor an installed plug-in" in (tmp_path / "refused").read_text()
    )
