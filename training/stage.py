"""A stage: a step of training from directories to a directory, and what its result depends on.

Knows neither the order of stages nor when one may be skipped; `pipeline` does.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.progress import Progress
from training.recipe import Recipe


@dataclass(frozen=True, slots=True)
class StageContext:
    """What a stage is given.

    Attributes:
        recipe: The whole recipe. A stage reads its own section and the seed only: the rest is not in its key.
        inputs: Directory of each stage it needs, by name. Read-only.
        output: An empty directory to fill; for a resumable stage, perhaps with what a killed run of the same key left.
        progress: The display.
    """

    recipe: Recipe
    inputs: Mapping[str, Path]
    output: Path
    progress: Progress


def _no_files(_: Recipe) -> Sequence[Path]:
    return ()


def _no_objection(_: Recipe) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Stage:
    """A named step.

    What a stage writes must follow from its section, the seed, its inputs and the files it reads; no clock times,
    so that a rerun with an equal result does not rerun the stages after it.

    Attributes:
        name: Also the name of its directory.
        needs: Stages whose output it reads.
        section: The part of the recipe it reads: a section, or a tuple or mapping of sections; `None` for no part.
        run: Fills ``context.output``.
        reads: Files or directories outside the work directory whose content it reads.
        check: Refuses a recipe that `run` could not follow; asked before any stage runs.
        version: Raised when the code makes something else of the same inputs.
        resumable: Whether `run` can go on from what a killed run of the same key left in the output directory.
        every_rank: Whether all processes of a launcher run it together; otherwise rank 0 does while the others wait.
        reads_base: Whether it reads the bundle that the recipe's section `base` names.
    """

    name: str
    needs: tuple[str, ...]
    section: Callable[[Recipe], object]
    run: Callable[[StageContext], None]
    reads: Callable[[Recipe], Sequence[Path]] = _no_files
    check: Callable[[Recipe], None] = _no_objection
    version: int = 1
    resumable: bool = False
    every_rank: bool = False
    reads_base: bool = False
