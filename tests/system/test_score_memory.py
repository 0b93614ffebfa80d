"""What `genrec score` holds in memory more than once: PyTorch only where rows are scored."""

import subprocess
import sys

import pytest

from tests.service.scoring import some_rows, write_rows

pytestmark = pytest.mark.system

DRIVER = """
import sys
from genrec.commands import main

try:
    main(sys.argv[1:])
finally:
    print(*sorted({"torch", "transformers"} & sys.modules.keys()))
"""


@pytest.mark.parametrize(("workers", "imported"), [("2", ""), ("1", "torch transformers")])
def test_who_only_drives_workers_imports_no_pytorch(causal_bundle_path, tmp_path, workers, imported):
    rows = write_rows(tmp_path / "rows.jsonl", some_rows(30))
    command = ["score", "--bundle", str(causal_bundle_path), "--input", str(rows), "--output", str(tmp_path / "out")]
    flags = ["--shard-rows", "10", "--workers", workers]
    driver = subprocess.run(
        [sys.executable, "-c", DRIVER, *command, *flags], capture_output=True, text=True, check=False
    )
    assert driver.returncode == 0, driver.stderr
    assert driver.stdout.strip() == imported


def test_processes_of_workers_are_forked_from_one_that_has_it_all_and_is_frozen():
    probe = "import gc, sys, service.score_preload; print(gc.get_freeze_count() > 100_000, 'torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", probe], text=True) == "True True\n"
