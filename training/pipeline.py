"""Run stages in order, skipping what is done and unchanged.

A stage's key is a hash of everything its result may depend on. Its result counts only when a ``stage.json`` with that
key stands in its directory and the files still have the hashes noted there. Knows nothing of what stages do.

Layout of a work directory: ``<stage>/`` (complete, with ``stage.json``), ``.<stage>.partial/`` (being written, or left
by a killed run; never trusted), ``.<stage>.old/`` (for an instant, while a result is replaced), ``.lock``.
"""

import fcntl
import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genrec.bundle.layout import sync, sync_tree
from genrec.bundle.manifest import read_sealed_manifest
from genrec.errors import InputError, LockedError
from training.disk import full_disk_told
from training.fingerprint import combined, content_sha256, tree_hashes, write_durably
from training.processes import is_main
from training.progress import Progress
from training.recipe import Recipe, as_table
from training.stage import Stage, StageContext

RECORD = "stage.json"
PARTIAL_KEY = ".partial-key"
POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class StageRecord:
    """What ``stage.json`` says of a finished stage.

    Attributes:
        key: Hash of `depends_on`.
        depends_on: What the result depends on, by name; tells which of it changed.
        seconds: How long the run took.
        content_sha256: Hash of `files`.
        files: Relative path → sha256.
    """

    key: str
    depends_on: Mapping[str, str]
    seconds: float
    content_sha256: str
    files: Mapping[str, str]


def run_pipeline(
    stages: Sequence[Stage], recipe: Recipe, work: Path, progress: Progress, until: str | None = None
) -> None:
    """Bring every stage up to date, in order.

    Args:
        stages: Each after the stages it needs.
        recipe: What to do.
        work: The work directory; made if absent, locked meanwhile.
        progress: The display.
        until: Stop after this stage.

    Raises:
        LockedError: Another run holds the work directory.
        InputError: `until` is no stage.
        RecipeError: A stage could not follow the recipe; none has run.
        DiskError: There is no room for a result; those before it are kept.
    """
    names = [stage.name for stage in stages]
    if until is not None and until not in names:
        raise InputError(f"there is no stage {until!r}; stages are {', '.join(names)}")
    wanted = stages if until is None else stages[: names.index(until) + 1]
    for stage in wanted:
        stage.check(recipe)
    if not is_main():
        for stage in wanted:
            _follow(stage, recipe, work, progress)
        return
    with locked(work):
        for number, stage in enumerate(wanted, start=1):
            _bring_up_to_date(stage, recipe, work, progress, f"[{number}/{len(wanted)}] {stage.name}")


def read_record(directory: Path) -> StageRecord | None:
    """The record of a finished stage, or None where there is none that can be read."""
    try:
        table = json.loads((directory / RECORD).read_text(encoding="utf-8"))
        return StageRecord(**table)
    except (OSError, ValueError, TypeError):
        return None


def _bring_up_to_date(stage: Stage, recipe: Recipe, work: Path, progress: Progress, label: str) -> None:
    depends_on = _dependencies(stage, recipe, work)
    reason = _reason_to_run(work / stage.name, depends_on)
    if reason is None:
        progress.say(f"{label}: unchanged, skipped")
        return
    progress.say(f"{label}: {reason}")
    partial = _open_partial(stage, work, _key(depends_on))
    started = time.monotonic()
    with full_disk_told(work, label):
        stage.run(_context(stage, recipe, work, progress))
        seconds = time.monotonic() - started
        _complete(partial, work / stage.name, depends_on, seconds)
    progress.say(f"{label}: done in {seconds:.1f} s")


def _follow(stage: Stage, recipe: Recipe, work: Path, progress: Progress) -> None:
    """The part of every rank but 0: join a stage that all ranks run, then wait until rank 0 has completed it.

    A stage of all ranks cannot complete without this one, so its being complete here means that rank 0 skipped it.
    """
    depends_on = _dependencies(stage, recipe, work)
    if stage.every_rank and _reason_to_run(work / stage.name, depends_on) is not None:
        while _partial_key(work, stage) != _key(depends_on):
            time.sleep(POLL_S)
        stage.run(_context(stage, recipe, work, progress))
    while (record := read_record(work / stage.name)) is None or record.key != _key(depends_on):
        time.sleep(POLL_S)  # the launcher ends this process if rank 0 fails


def _context(stage: Stage, recipe: Recipe, work: Path, progress: Progress) -> StageContext:
    inputs = {name: work / name for name in stage.needs}
    return StageContext(recipe=recipe, inputs=inputs, output=_partial(work, stage), progress=progress)


def _dependencies(stage: Stage, recipe: Recipe, work: Path) -> dict[str, str]:
    """Everything the result may depend on, by a name for the user → hash or value."""
    section = json.dumps(as_table(stage.section(recipe)), sort_keys=True)
    depends_on = {
        "the stage's code": f"{stage.name} {stage.version}",
        "the seed": str(recipe.seed),
        "the recipe": hashlib.sha256(section.encode()).hexdigest(),
    }
    for name in stage.needs:
        record = read_record(work / name)
        if record is None:
            raise InputError(f"stage {stage.name!r} needs the result of {name!r}, which {work} lacks; run it first")
        depends_on[f"the result of {name}"] = record.content_sha256
    if stage.reads_base and recipe.base is not None:
        depends_on["the base bundle"] = read_sealed_manifest(Path(recipe.base.bundle)).version
    files = {str(path): content_sha256(path) for path in stage.reads(recipe)}
    return {**depends_on, "the files it reads": combined(files)}


def _key(depends_on: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()


def _reason_to_run(directory: Path, depends_on: Mapping[str, str]) -> str | None:
    """Why the stage must run, for the user; None if its result is complete, unchanged and of the same key."""
    record = read_record(directory)
    if record is None:
        return "running"
    if record.key != _key(depends_on):
        changed = [name for name in depends_on if record.depends_on.get(name) != depends_on[name]]
        return f"running again, changed: {', '.join(changed)}"
    if combined(tree_hashes(directory, without=(RECORD,))) != record.content_sha256:
        return "running again, its files were edited after it was done"
    return None


def _partial(work: Path, stage: Stage) -> Path:
    return work / f".{stage.name}.partial"


def _partial_key(work: Path, stage: Stage) -> str | None:
    try:
        return (_partial(work, stage) / PARTIAL_KEY).read_text(encoding="utf-8")
    except OSError:
        return None


def _open_partial(stage: Stage, work: Path, key: str) -> Path:
    """The directory to write into: what a killed run of the same key left if the stage resumes, else an empty one."""
    partial = _partial(work, stage)
    if not (stage.resumable and _partial_key(work, stage) == key):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write_durably(partial / PARTIAL_KEY, key)
    return partial


def _complete(partial: Path, final: Path, depends_on: Mapping[str, str], seconds: float) -> None:
    """Sync, note the hashes, rename into place. A crash in between leaves the old result, or none."""
    (partial / PARTIAL_KEY).unlink(missing_ok=True)
    files = tree_hashes(partial)
    record: dict[str, Any] = {
        "key": _key(depends_on),
        "depends_on": dict(depends_on),
        "seconds": round(seconds, 3),
        "content_sha256": combined(files),
        "files": files,
    }
    sync_tree(partial)
    write_durably(partial / RECORD, json.dumps(record, indent=2) + "\n")
    old = final.with_name(f".{final.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    partial.rename(final)
    sync(final.parent)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def locked(work: Path) -> Iterator[None]:
    """Hold a work directory; the lock ends with the process, however that ends.

    Raises:
        LockedError: Another run holds it.
    """
    work.mkdir(parents=True, exist_ok=True)
    with (work / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LockedError(
                f"{work} is in use by another run; wait for it or give another --work directory"
            ) from error
        yield
