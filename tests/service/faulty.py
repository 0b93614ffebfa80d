"""`genrec serve` around the fake recommender, for tests that need a real process with faults on demand.

python -m tests.service.faulty --bundle NAME …     a bundle called `slow` takes a minute to load
"""

import time
from pathlib import Path

import typer

from service import commands, process
from tests.service.fakes import FakeRecommender


def load(bundle: Path, _: object) -> FakeRecommender:
    if bundle.name == "slow":
        time.sleep(60)
    return FakeRecommender()


if __name__ == "__main__":
    process.load_to_serve = load  # type: ignore[assignment]
    typer.run(commands.serve)
