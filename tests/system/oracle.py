"""Holding a served bundle against an independent reading of it, which imports nothing of ours."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.system.server import ask, served

SHARED = Path(__file__).parents[3] / "shared"
ORACLE = SHARED / "tools" / "hf_oracle.py"


def agree_on_all(bundle: Path, histories: Sequence[Sequence[str]], exclude_history: bool, scratch: Path) -> None:
    """Every history is answered over HTTP as transformers alone answers it."""
    requests, answers = scratch / "requests.jsonl", scratch / "answers.jsonl"
    requests.write_text("".join(json.dumps({"history": list(history)}) + "\n" for history in histories))
    with served(bundle, log=scratch / "log") as client:
        ask(client, histories, answers, k=10, exclude_history=exclude_history)
    flags = ["--exclude-history"] if exclude_history else []
    verdict = subprocess.run(
        [sys.executable, ORACLE, bundle, requests, "--compare", answers, *flags], capture_output=True, text=True
    )
    print(verdict.stdout)
    assert verdict.returncode == 0, verdict.stdout + verdict.stderr
    assert f"agree {len(histories)}/{len(histories)}" in verdict.stdout
