"""The serve command. What needs a real process, with its signals and exit codes, is marked system."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import typer
from typer.testing import CliRunner

from genrec.commands import main
from service.commands import serve
from tests.service.fakes import HANGS, KILLS

ROOT = Path(__file__).parents[2]
GENREC = [sys.executable, "-m", "genrec", "serve"]
FAULTY = [sys.executable, "-m", "tests.service.faulty", "--bundle"]


def test_every_flag_is_told_with_its_variable():
    app = typer.Typer()
    app.command()(serve)
    text = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output
    for name in ("BUNDLE", "HOST", "PORT", "DEVICE", "DTYPE", "ENGINE"):
        assert f"--{name.lower()}" in text
        assert f"GENREC_{name}" in text


@dataclass
class Process:
    process: subprocess.Popen[str]
    lines: list[str]
    url: str = ""

    def wait_ready(self) -> "Process":
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            event = json.loads(line)
            if event["event"] == "loading":
                self.url = event["url"]
            if event["event"] == "ready":
                return self
        raise AssertionError(self.lines)

    def end(self, within_s: float = 20.0) -> tuple[int, list[dict[str, Any]]]:
        """Exit code and every event of a process that ends."""
        assert self.process.stderr is not None and self.process.stdout is not None
        self.lines += self.process.stderr  # not communicate(), which forgets what was read ahead
        assert self.process.stdout.read() == "", "everything is said on stderr"
        return self.process.wait(within_s), [json.loads(line) for line in self.lines]


@contextmanager
def started(*command: str | Path, **environment: str) -> Iterator[Process]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("GENREC_")}
    process = subprocess.Popen(
        [str(part) for part in command],
        cwd=ROOT,
        env=env | {"OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Process(process, [])
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def refused(*command: str | Path, **environment: str) -> tuple[int, str]:
    """Exit code and stderr of a process that does not get to serve."""
    with started(*command, **environment) as begun:
        out, err = begun.process.communicate(timeout=60)
        assert out == ""
        return begun.process.returncode, err


@pytest.mark.system
def test_a_bundle_is_served_until_sigterm_and_every_line_is_an_event(causal_bundle_path):
    with started(*GENREC, "--bundle", causal_bundle_path, "--port", "0") as begun:
        url = begun.wait_ready().url
        body = {"history": ["i1", "i2"], "k": 3}
        with httpx.Client(base_url=url) as client:
            answer = client.post("/recommend", json=body).json()
            assert [item["rank"] for item in answer["items"]] == [1, 2, 3]
            info = client.get("/info").json()
        begun.process.send_signal(signal.SIGTERM)
        code, events = begun.end()
    assert code == 0
    assert [event["event"] for event in events if event["event"] != "request"] == [
        "loading", "ready", f"""try: curl -s {url}/recommend -H 'content-type: application/json' """
        f"""-d '{json.dumps({"history": most_popular(causal_bundle_path), "k": 10})}'""", "stopped",
    ]  # fmt: skip
    ready = next(event for event in events if event["event"] == "ready")
    assert (ready["device"], ready["url"], ready["version"]) == (info["device"], url, info["bundle"]["version"])


def most_popular(bundle: Path) -> list[str]:
    from genrec.bundle import load_bundle

    catalog = load_bundle(bundle).catalog
    return [catalog.item_id(int(row)) for row in catalog.most_popular()[:2]]


@pytest.mark.system
def test_a_damaged_bundle_is_one_sentence_and_exit_65(causal_bundle_path, tmp_path):
    damaged = shutil.copytree(causal_bundle_path, tmp_path / "damaged")
    weights = next((damaged / "model").glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with started(*GENREC, "--bundle", damaged, "--port", "0") as begun:
        code, events = begun.end(60)
    assert code == 65
    [error] = [event for event in events if event["level"] == "error"]
    assert weights.name in error["reason"]
    assert "exception" not in error
    assert [event["event"] for event in events] == ["loading", error["event"], "stopped"]


@pytest.mark.parametrize(
    ("flags", "environment", "sentence"),
    [
        (["--bundle", "no/such"], {"GENREC_PROT": "1"}, "the nearest is GENREC_PORT"),
        (["--bundle", "no/such", "--host", "0.0.0.0"], {}, "GENREC_AUTH=open"),
        (["--bundle", "no/such", "--port", "70000"], {}, "GENREC_PORT"),
        ([], {}, "give --bundle or set GENREC_BUNDLE"),
    ],
)
def test_settings_that_do_not_fit_are_a_sentence_and_exit_65(monkeypatch, capsys, flags, environment, sentence):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as caught:
        main(["serve", *flags])
    assert caught.value.code == 65
    [line] = capsys.readouterr().err.splitlines()
    assert sentence in line


@pytest.mark.system
def test_a_bundle_that_is_not_there_is_a_sentence_and_exit_65():
    code, said = refused(*GENREC, "--port", "0", GENREC_BUNDLE="no/such")
    assert code == 65
    assert "no/such is not a directory" in said
    assert "Traceback" not in said


@pytest.mark.system
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_device_that_is_not_there_is_a_sentence(causal_bundle_path):
    code, said = refused(*GENREC, "--bundle", causal_bundle_path, "--port", "0", "--device", "cuda")
    assert code == 65
    assert "cuda" in said.lower()
    assert "Traceback" not in said


def test_a_wrong_flag_is_told_before_pytorch_is_imported():
    program = "import sys, service.commands; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.system
def test_a_port_in_use_ends_the_command_before_it_loads(causal_bundle_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, said = refused(*GENREC, "--bundle", causal_bundle_path, "--port", port)
    assert code == 65
    assert f"cannot listen on 127.0.0.1 port {port}" in said
    assert "loading" not in said


@pytest.mark.system
@pytest.mark.parametrize(("fault", "reason"), [(HANGS, "the engine hangs"), (KILLS, "died of SystemExit")])
def test_a_lost_engine_answers_503_and_ends_the_process_with_70(fault, reason):
    quick = {"GENREC_WATCHDOG_TIMEOUT_MS": "2000"}
    with started(*FAULTY, "any", "--port", "0", **quick) as begun, ThreadPoolExecutor(3) as pool:
        url = begun.wait_ready().url
        begin = time.monotonic()
        waiting = [pool.submit(recommend, url, [fault]) for _ in range(3)]
        while httpx.get(f"{url}/ready").status_code == 200:
            assert time.monotonic() - begin < 10.0
            time.sleep(0.02)
        assert [one.result().status_code for one in waiting] == [503] * 3
        code, events = begun.end()
    assert code == 70
    assert any(reason in event.get("reason", "") for event in events if event["level"] == "error")


def recommend(url: str, history: list[str]) -> httpx.Response:
    return httpx.post(f"{url}/recommend", json={"history": history}, timeout=30)


@pytest.mark.system
def test_sigterm_lets_what_was_admitted_finish_and_exits_0(causal_bundle_path):
    with started(*GENREC, "--bundle", causal_bundle_path, "--port", "0") as begun, ThreadPoolExecutor(8) as pool:
        url = begun.wait_ready().url
        expected = recommend(url, ["i1"]).json()["items"]
        admitted = [pool.submit(recommend, url, ["i1"]) for _ in range(8)]
        while sample(url, "genrec_queue_depth") < 4 and not all(one.done() for one in admitted):
            time.sleep(0.005)
        begun.process.send_signal(signal.SIGTERM)
        replies = [one.result() for one in admitted if one.exception() is None]
        code, _ = begun.end()
    assert code == 0
    assert replies
    assert all(reply.json()["items"] == expected for reply in replies)


@pytest.mark.system
def test_sigterm_while_it_loads_ends_it_at_once():
    with started(*FAULTY, "slow", "--port", "0") as begun:
        assert begun.process.stderr is not None
        begun.lines.append(begun.process.stderr.readline())
        url = json.loads(begun.lines[0])["url"]
        while probe(url) != 200:
            time.sleep(0.05)
        begin = time.monotonic()
        begun.process.send_signal(signal.SIGTERM)
        code, _ = begun.end()
    assert code == 0
    assert time.monotonic() - begin < 5.0


def probe(url: str) -> int:
    try:
        return httpx.get(f"{url}/health").status_code
    except httpx.TransportError:
        return 0


@pytest.mark.system
def test_clients_that_hang_up_on_a_socket_leave_the_queue():
    quick = {"GENREC_STALL_TIMEOUT_MS": "20000"}
    with started(*FAULTY, "any", "--port", "0", **quick) as begun, ThreadPoolExecutor(1) as pool:
        url = begun.wait_ready().url
        busy = pool.submit(recommend, url, [HANGS])
        body = b'{"history": ["1"]}'
        head = b"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        until(lambda: sample(url, "genrec_queue_depth") == 1)
        clients = [socket.create_connection(address) for _ in range(20)]
        for client in clients:
            client.sendall(head % len(body) + body)
        until(lambda: sample(url, "genrec_queue_depth") == 21)
        for client in clients:
            client.close()
        until(lambda: sample(url, "genrec_queue_depth") == 1, within_s=1.0)
        begun.process.kill()
        assert isinstance(busy.exception(), httpx.TransportError)


def until(condition: Any, within_s: float = 10.0) -> None:
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < within_s
        time.sleep(0.02)


def sample(url: str, name: str) -> float:
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(f"{name} "))
