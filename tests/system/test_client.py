"""The client against a real process: what docs/client.md shows, and a service that is started again."""

import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from service.client import Client, Retries, Unavailable
from tests.system.server import started

pytestmark = pytest.mark.system
PAGE = Path(__file__).parents[2] / "docs/client.md"


def test_the_examples_of_the_page_run_as_they_stand(causal_bundle_path, tmp_path):
    examples = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    said = []
    with started(causal_bundle_path, log=tmp_path / "log") as server:
        for example in examples:
            code = example.replace("http://127.0.0.1:8000", server.url)
            for number, item_id in enumerate(("50", "181", "172", "1"), start=1):
                code = code.replace(f'"{item_id}"', f'"i{number}"')
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
            assert (done.returncode, done.stderr) == (0, "")
            said.append(done.stdout)
    first, second, third = said
    assert [line.split()[0] for line in first.splitlines()[:3]] == ["1", "2", "3"]
    assert len(re.findall(r"'i\d+'", second)) == 3
    assert re.fullmatch(r"422 invalid_request /k [0-9a-f]{32}\n", third)


def test_a_call_outlives_the_process_that_it_was_sent_to(causal_bundle_path, tmp_path):
    with started(causal_bundle_path, log=tmp_path / "first") as server:
        port = server.url.rpartition(":")[2]
        with Client(server.url, timeout_s=60, retries=Retries(1_000, cap_s=0.2)) as client:
            before = client.recommend(["i1"], k=3)
            server.process.kill()
            server.process.wait(10)
            with pytest.raises(Unavailable), Client(server.url, retries=0) as impatient:
                impatient.recommend(["i1"])
            after = []
            asking = threading.Thread(target=lambda: after.append(client.recommend(["i1"], k=3)))
            asking.start()
            time.sleep(0.5)
            assert not after
            with started(causal_bundle_path, "--port", port, log=tmp_path / "second"):
                asking.join(30)
    assert after[0].items == before.items
