"""`genrec serve` with a real bundle, a real engine and faults on demand, for tests that need a real process.

The file that the variable FAULTS names is read before every search, so a test makes a fault and mends it while the
server runs: see `Faults`. Nothing of this is in the service itself, so nothing of it can be switched on in production.
"""

import json
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genrec.bundle import Bundle
from genrec.commands import main
from genrec.decoding.engine import Beam, Engine, Query, Scores
from genrec.errors import EngineError, InvalidOutput
from genrec.memory import free_memory
from genrec.recommender import Recommender
from service import bundle_switch, loading, process
from service.settings import Settings

LEAKED: list[Any] = []


@dataclass(frozen=True)
class Faults:
    """What goes wrong.

    Attributes:
        gated: a search waits until this is over.
        delay_s: added for each request of a batch: an engine of 1 / delay_s requests a second.
        hangs: a search never returns.
        dies: a search ends the thread.
        lost: a kernel fails; the device cannot be used again.
        poisoned: item ids; a request whose history has one raises what a library would.
        not_finite: item ids; a request whose history has one gets NaN.
        too_large: item ids; a batch that has one runs out of memory.
        most: more requests at once than so many run out of memory; 0 is no limit.
        leaks: bytes kept for ever by each search.
        loads_s: how long it takes to load a bundle, at least.
        free_bytes: of memory, where a bundle is to be loaded beside another; None is what there really is.
    """

    gated: bool = False
    delay_s: float = 0.0
    hangs: bool = False
    dies: bool = False
    lost: bool = False
    poisoned: Sequence[str] = ()
    not_finite: Sequence[str] = ()
    too_large: Sequence[str] = ()
    most: int = 0
    leaks: int = 0
    loads_s: float = 0.0
    free_bytes: int | None = None

    @classmethod
    def read(cls, file: Path) -> "Faults":
        """None where there is no file. Write it aside and rename it: it may be read at any moment."""
        try:
            return cls(**json.loads(file.read_text()))
        except FileNotFoundError:
            return cls()

    def write(self, file: Path) -> None:
        aside = file.with_suffix(".aside")
        aside.write_text(json.dumps(vars(self)))
        aside.replace(file)


@dataclass(frozen=True, eq=False)
class FaultyEngine:
    """An engine, and what befalls it."""

    engine: Engine
    bundle: Bundle
    file: Path

    @property
    def name(self) -> str:
        return self.engine.name

    def search(self, queries: Sequence[Query], num_beams: int) -> list[Beam | EngineError]:
        while (faults := Faults.read(self.file)).gated:
            time.sleep(0.005)
        time.sleep(faults.delay_s * len(queries))
        if faults.leaks:
            LEAKED.append(np.ones(faults.leaks, np.uint8))
        if faults.hangs:
            threading.Event().wait()
        if faults.dies:
            raise SystemExit(3)
        if faults.lost:
            raise torch.AcceleratorError("CUDA error: device-side assert triggered at 0xdeadbeef")
        if self._any(queries, faults.poisoned):
            raise RuntimeError("a tensor at 0xdeadbeef in /opt/lib has the wrong shape")
        if self._any(queries, faults.too_large) or 0 < faults.most < len(queries):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        found = self.engine.search(queries, num_beams)
        broken = [self._any([query], faults.not_finite) for query in queries]
        return [InvalidOutput("NaN") if bad else one for bad, one in zip(broken, found, strict=True)]

    def score(self, query: Query, rows: np.ndarray) -> Scores:
        return self.engine.score(query, rows)

    def steps(self, query: Query, num_beams: int) -> Any:
        return self.engine.steps(query, num_beams)

    def _any(self, queries: Sequence[Query], item_ids: Sequence[str]) -> bool:
        rows = [self.bundle.catalog.row(item_id) for item_id in item_ids]
        return any(
            _holds(query.prompt, self.bundle.encoder.target(row))
            for query in queries
            for row in rows
            if row is not None
        )


def _holds(prompt: Sequence[int], tokens: Sequence[int]) -> bool:
    width = len(tokens)
    return any(list(prompt[at : at + width]) == list(tokens) for at in range(len(prompt) - width + 1))


def load(bundle: Path, settings: Settings) -> Recommender:
    file = Path(os.environ["FAULTS"])
    time.sleep(Faults.read(file).loads_s)
    recommender = loading.load_to_serve(bundle, settings)
    return replace(recommender, engine=FaultyEngine(recommender.engine, recommender.bundle, file))


def free(device: str) -> int | None:
    given = Faults.read(Path(os.environ["FAULTS"])).free_bytes
    return free_memory(device) if given is None else given


def serve(arguments: Sequence[str]) -> None:
    """The command line around an engine with faults."""
    process.load_to_serve = load
    bundle_switch.free_memory = free
    main(arguments)
